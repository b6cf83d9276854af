"""One step of a model: (tokens, state) -> (logits, state)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from allmem_ops.library import LibraryInfo
from allmem_ops.products import QUANTIZED_MATMUL
from allmem_runtime.engine import prepared
from allmem_runtime.engine.buffers import DeviceBuffers
from allmem_runtime.engine.captured_families import may_be_captured
from allmem_runtime.engine.device_thread import device_thread
from allmem_runtime.engine.devices import (
    CPU_PROVIDER,
    CUDA_REMEDY,
    Device,
    misplaced,
    without_kernels,
)
from allmem_runtime.engine.failures import ORT_ERRORS, STEP_ERRORS, first_line
from allmem_runtime.engine.memory_limit import exhausted, is_exhausted
from allmem_runtime.engine.opening import (
    GraphsRefused,
    Wanted,
    open_graph,
    operators_by_provider,
)
from allmem_runtime.engine.operators import find_library
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.engine.piece_limits import Ids, Logits, check_piece
from allmem_runtime.engine.threads import cpu_threads
from allmem_runtime.errors import (
    DeviceError,
    ModelFileError,
    OperatorLibraryError,
    SessionStateError,
    UsageError,
)
from allmem_runtime.files.package import Package
from allmem_runtime.files.signature import Argument, check_signature

log = logging.getLogger(__name__)

_GENERIC_PRODUCTS = (
    f"This CPU runs the generic kernels of {QUANTIZED_MATMUL.name}, which are slow: a model "
    "exported with --matmul-kernel onnxruntime is probably faster here."
)
_DEFAULTS = EngineOptions()
_RECOVER = "Take the session back with rollback(), or start again with reset()."


class Engine:
    """A model's graph, ready to run; any number of sessions may share it, in any threads.

    Args:
        package: the checked model folder.
        device: where to run.
        options: how; the device named there was chosen already, and is ``device``.
        meanwhile: called right before a graph is opened, which leaves time for other threads.

    Attributes:
        operators: ``native`` or ``portable``, what is used in fact.
        threads: CPU threads of one step.
        cuda_graph: whether single tokens replay CUDA graphs, in fact.
        prepared: folder of the prepared weights that are used; None if none are.
        notices: why something is not as ``auto`` prefers it; sentences for the user.

    Raises:
        UsageError: an option does not go with the device.
        ModelFileError: the graph does not load, or its inputs and outputs are not the state's.
        OperatorLibraryError: the library was insisted on and does not load.
        DeviceError: ONNX Runtime would have run the model elsewhere, or it does not fit.
    """

    def __init__(
        self,
        package: Package,
        device: Device,
        options: EngineOptions = _DEFAULTS,
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self.threads = cpu_threads(options.threads)
        _check_options(device, options)
        self.package = package
        self.device = device
        self._options = options
        self.notices: list[str] = []
        self.prepared: Path | None = None
        self._look_for_prepared = options.prepared and device.name == "cpu"
        self._chunk = package.manifest.chunk
        self._wanted = Wanted(package, device, options, meanwhile)
        self._thread = device_thread(device.name)
        self._idle: deque[DeviceBuffers] = deque()
        captured = may_be_captured(package.manifest)
        self.cuda_graph = device.name == "cuda" and options.cuda_graph is not False and captured
        self.operators = "native"
        self._library = self._choose_operators(options.operators)
        check_signature(
            package.graph,
            package.manifest,
            [Argument(a.name, a.type, tuple(a.shape)) for a in self._session.get_inputs()],
            [Argument(a.name, a.type, tuple(a.shape)) for a in self._session.get_outputs()],
        )
        if device.name != "cpu":
            self._thread.do(self._prepare)

    @property
    def notice(self) -> str:
        """All notices in one text; empty if there are none."""
        return " ".join(self.notices)

    # Loading -----------------------------------------------------------------------------

    def _choose_operators(self, operators: str) -> LibraryInfo | None:
        """Load the graph with the operators asked for, or what ``auto`` falls back to."""
        library = find_library(operators, self.package.manifest.operators, self.device)
        if isinstance(library, LibraryInfo):
            problem = self._open(library)
            if not problem:
                return library
        else:
            problem = library or ""
        if problem and operators != "auto":
            raise OperatorLibraryError(
                f"The native operators cannot be used: {problem}.",
                "Install the package with its library, or use --operators portable.",
            )
        if problem:
            self._say(f"Using the portable operators, which are slower: {problem}.")
        self.operators = "portable"
        problem = self._open(None)
        if problem:
            raise DeviceError(f"{self.package.graph}: {problem}.", CUDA_REMEDY)
        return None

    def _open(self, library: LibraryInfo | None) -> str:
        """Load the graph; the result says why it should not be used like that, if it should not."""
        refused = False
        try:
            try:
                self._session = self._load(library, self.cuda_graph)
            except GraphsRefused:
                refused = True
                self._session = self._load(library, graphs=False)
        except ORT_ERRORS as error:
            assert library is not None
            return f"{library.path} does not load ({first_line(error)})"
        names = misplaced(self.device, self.providers())
        if names:
            return f"{', '.join(names)} would run on the CPU, not on {self.device}"
        if library is not None and self.device.name == "cpu":
            names = without_kernels(self.package.scan.operators, self.providers())
            if names:
                return f"{library.path} has no kernels for {', '.join(names)}; build it again"
            if (
                library.cpu_path == "generic"
                and QUANTIZED_MATMUL.name in self.package.scan.operators
            ):
                self._say(_GENERIC_PRODUCTS)
        if refused:
            self.cuda_graph = False
            names = self.providers().get(CPU_PROVIDER, ["some operators"])
            remedy = "" if library else " The native operators do without them."
            self._say(
                f"Running without CUDA graphs, more slowly: {', '.join(names)} of the graph run on "
                f"the CPU, where nothing can be captured.{remedy}"
            )
        return ""

    def _load(self, library: LibraryInfo | None, graphs: bool) -> ort.InferenceSession:
        path = None if library is None else library.path
        if self._look_for_prepared:
            session = self._load_prepared(path)
            if session is not None:
                return session
        return self._thread.do(lambda: open_graph(self._wanted, path, graphs))

    def _load_prepared(self, library: Path | None) -> ort.InferenceSession | None:
        """Map what was prepared, if it may be trusted and still loads."""
        self.prepared = None
        found = prepared.find(self.package, library)
        if found.notice:
            self._say(found.notice)
        if found.graph is None:
            return None
        try:
            session = open_graph(self._wanted, library, False, found.graph)
        except ModelFileError as error:
            self._say(f"Opening without prepared weights: {error.message}")
            return None
        self.prepared = found.folder
        return session

    def _prepare(self) -> None:
        """Take all device memory that steps will need, and capture, before there is any state."""
        try:
            buffers = self._new_buffers()
            buffers.warm_up()
            if self.cuda_graph:
                try:
                    buffers.capture()
                except STEP_ERRORS as error:
                    # What a failed capture leaves of the stream is not to be trusted.
                    self._without_graphs(error)
                    self._session = self._load(self._library, graphs=False)
                    buffers = self._new_buffers()
                    buffers.warm_up()
        except STEP_ERRORS as error:
            reason, remedy = first_line(error), CUDA_REMEDY
            if is_exhausted(error):
                reason, remedy = exhausted(self._options.memory_limit, str(self.device))
            raise DeviceError(
                f"{self.package.graph} does not run on {self.device}: {reason}.", remedy
            ) from error
        self._idle.append(buffers)

    def _without_graphs(self, error: BaseException) -> None:
        self.cuda_graph = False
        self._say(f"Running without CUDA graphs: capturing failed ({first_line(error)}).")

    def _say(self, notice: str) -> None:
        self.notices.append(notice)
        log.warning("%s", notice)

    # Running -----------------------------------------------------------------------------

    def buffers(self) -> DeviceBuffers:
        """Memory for one session, blank.

        Raises:
            DeviceError: there is not enough device memory.
        """
        try:
            return self._thread.do(self._take_buffers)
        except STEP_ERRORS as error:
            reason, remedy = first_line(error), CUDA_REMEDY
            if is_exhausted(error):
                reason = f"the memory of {self.device} is exhausted"
                remedy = "Close a session, or make sessions without undo."
            raise DeviceError(f"There is no room for a session: {reason}.", remedy) from error

    def _take_buffers(self) -> DeviceBuffers:
        try:
            buffers = self._idle.pop()
        except IndexError:
            buffers = self._new_buffers()
            if self.cuda_graph:
                try:
                    buffers.capture()
                except STEP_ERRORS as error:
                    self._without_graphs(error)
        else:
            buffers.clear()
        return buffers

    def give_back(self, buffers: DeviceBuffers) -> None:
        """The session of these buffers is gone; another may have them.

        ONNX Runtime keeps a captured graph, and the memory of the state, as long as the model is
        loaded. So both serve again: there are never more than sessions at the same time.
        """
        if self.device.name != "cpu":
            self._idle.append(buffers)

    def _new_buffers(self) -> DeviceBuffers:
        return DeviceBuffers(
            self._session,
            self.package,
            self.device,
            in_place=self.operators == "native",
            graphs=self.cuda_graph,
        )

    def run(self, buffers: DeviceBuffers, ids: Ids, position: int, rows: Ids) -> Logits:
        """Feed one piece.

        Args:
            buffers: the session's memory; no two threads may use one at a time.
            ids: [time], at least one token, not crossing a chunk boundary.
            position: absolute index of the first token.
            rows: [rows], which tokens of the piece want logits.

        Returns:
            [rows, vocab_size]; valid until the next step of the same buffers.

        Raises:
            UsageError: the piece is none that can be fed; the state is as it was.
            SessionStateError: ONNX Runtime reported an error; the state is not to be trusted.
        """
        check_piece(self._chunk, ids, position, rows)
        try:
            return self._thread.do(lambda: buffers.run(ids, position, rows))
        except STEP_ERRORS as error:
            reason, remedy = first_line(error), _RECOVER
            if self.device.name != "cpu" and is_exhausted(error):
                reason, more = exhausted(self._options.memory_limit, str(self.device))
                remedy = f"{_RECOVER} {more}"
            raise SessionStateError(
                f"The step at position {position} failed: {reason}.", remedy
            ) from error

    def providers(self) -> dict[str, list[str]]:
        """Which operators run on which provider, as ONNX Runtime recorded it.

        Returns:
            Provider names to sorted operator names; empty if this version cannot tell.
        """
        return operators_by_provider(self._session)


def _check_options(device: Device, options: EngineOptions) -> None:
    if device.name == "cuda":
        return
    for given, what in (
        (options.cuda_graph is True, "CUDA graphs are"),
        (options.device_memory is not None, "A limit of device memory is"),
    ):
        if given:
            raise UsageError(
                f"{what} for a CUDA device, and the model runs on {device}: {device.why}",
                "Leave the option out, or use --device cuda.",
            )
