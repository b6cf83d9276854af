"""One step of a model: (tokens, state) -> (logits, state)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import onnxruntime as ort

from allmem_ops.library import LibraryInfo
from allmem_runtime.engine.buffers import DeviceBuffers, Ids, Logits
from allmem_runtime.engine.devices import CUDA_REMEDY, Device, misplaced
from allmem_runtime.engine.failures import FATAL, ORT_ERRORS, STEP_ERRORS, first_line
from allmem_runtime.engine.operators import find_library
from allmem_runtime.errors import (
    AllMemError,
    DeviceError,
    ModelFileError,
    OperatorLibraryError,
    SessionStateError,
    UsageError,
)
from allmem_runtime.files.package import Package
from allmem_runtime.files.signature import Argument, check_signature

log = logging.getLogger(__name__)


class Engine:
    """A model's graph, ready to run; immutable, so any number of sessions may share it.

    Args:
        package: the checked model folder.
        device: where to run.
        operators: ``auto`` uses the native library if there is one, ``native`` insists on it,
            ``portable`` uses the function bodies in the graph, anything else is the path of a
            library to load.
        threads: CPU threads of one step; None leaves it to ONNX Runtime.

    Attributes:
        operators: ``native`` or ``portable``, what is used in fact.
        notice: why it is not what ``auto`` prefers; empty if it is.

    Raises:
        ModelFileError: the graph does not load, or its inputs and outputs are not the state's.
        OperatorLibraryError: the library was insisted on and does not load.
        DeviceError: ONNX Runtime would have run the model elsewhere.
    """

    def __init__(
        self, package: Package, device: Device, operators: str = "auto", threads: int | None = None
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not 1 <= threads <= 1024):
            raise UsageError(f"threads is {threads!r}.", "It must be 1 to 1024.")
        self.package = package
        self.device = device
        self.notice = ""
        library = find_library(operators, package.manifest.operators)
        self.operators = "native"
        if isinstance(library, LibraryInfo):
            problem = self._open(threads, library)
        else:
            problem = library or ""
        if library is None or problem:
            if problem:
                self._without_library(operators, problem)
            self.operators = "portable"
            problem = self._open(threads, None)
            if problem:
                raise DeviceError(f"{package.graph}: {problem}.", CUDA_REMEDY)
        check_signature(
            package,
            [Argument(a.name, a.type, tuple(a.shape)) for a in self._session.get_inputs()],
            [Argument(a.name, a.type, tuple(a.shape)) for a in self._session.get_outputs()],
        )

    def _open(self, threads: int | None, library: LibraryInfo | None) -> str:
        """Load the graph; the result says why it should not be used like that, if it should not."""
        options = _options(threads)
        if library is not None:
            try:
                options.register_custom_ops_library(str(library.path))
            except ORT_ERRORS as error:
                return f"{library.path} does not load ({first_line(error)})"
        self._session = self._load(options)
        names = misplaced(self.device, self.providers())
        if not names:
            return ""
        return f"{', '.join(names)} would run on the CPU, not on {self.device}"

    def buffers(self) -> DeviceBuffers:
        """Memory for one session, blank."""
        return DeviceBuffers(
            self._session, self.package, self.device, in_place=self.operators == "native"
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
            SessionStateError: ONNX Runtime reported an error; the state is not to be trusted.
        """
        try:
            return buffers.run(self._session, ids, position, rows)
        except STEP_ERRORS as error:
            raise SessionStateError(
                f"The step at position {position} failed: {first_line(error)}.",
                "Take the session back with rollback(), or start again with reset().",
            ) from error

    def providers(self) -> dict[str, list[str]]:
        """Which operators run on which provider, as ONNX Runtime recorded it.

        Returns:
            Provider names to sorted operator names; empty if this version cannot tell.
        """
        ask: Callable[[], Any] | None = getattr(
            self._session, "get_provider_graph_assignment_info", None
        )
        if ask is None:
            return {}
        found: dict[str, set[str]] = {}
        for part in ask():
            names = found.setdefault(part.ep_name, set())
            names.update(f"{node.domain}:{node.op_type}".lstrip(":") for node in part.get_nodes())
        return {provider: sorted(names) for provider, names in found.items()}

    def _without_library(self, operators: str, reason: str) -> None:
        """Either an error or, under ``auto``, a notice."""
        if operators != "auto":
            raise OperatorLibraryError(
                f"The native operators cannot be used: {reason}.",
                "Install the package with its library, or use --operators portable.",
            )
        self.notice = f"Using the portable operators, which are slower: {reason}."
        log.warning("%s", self.notice)

    def _load(self, options: ort.SessionOptions) -> ort.InferenceSession:
        provider: Any = self.device.provider
        if self.device.name == "cuda":
            provider = (
                provider,
                {
                    "device_id": str(self.device.index),
                    # Growing by powers of two would double the memory of a long piece.
                    "arena_extend_strategy": "kSameAsRequested",
                },
            )
        graph = self.package.graph
        try:
            session = ort.InferenceSession(
                os.fspath(graph), options, providers=[provider], enable_fallback=0
            )
        except ORT_ERRORS as error:
            raise self._load_error(error) from None
        if self.device.provider not in session.get_providers():
            raise DeviceError(f"{graph} could not be loaded on {self.device}.", CUDA_REMEDY)
        return session

    def _load_error(self, error: Exception) -> AllMemError:
        hint = "Export the model again, or fetch an intact copy."
        if self.operators == "portable" and self.package.scan.operators:
            hint = (
                "If it was exported without function bodies it needs the native operators: "
                "install the package with its library. Otherwise export it again."
            )
        return ModelFileError(f"{self.package.graph} does not load: {first_line(error)}.", hint)


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # A pattern is kept for every length of a piece ever seen.
    options.enable_mem_pattern = False
    # A spinning thread takes the core from whatever else the machine is doing, us included.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options
