"""One step of a model: (tokens, state) -> (logits, state). The only module that calls ORT."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from allmem_ops.library import LibraryInfo
from allmem_runtime import spec
from allmem_runtime.devices import CUDA_PROVIDER, CUDA_REMEDY, Device, misplaced
from allmem_runtime.errors import (
    AllMemError,
    DeviceError,
    ModelFileError,
    OperatorLibraryError,
    SessionStateError,
    UsageError,
)
from allmem_runtime.operators import find_library
from allmem_runtime.package import Package
from allmem_runtime.signature import Argument, check_signature
from allmem_runtime.state import Tensors

log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]

_FATAL = 4  # ORT's own messages also come as exceptions; printed they would end up in answers
_WARNING = 2
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(
        kind
        for kind in vars(ort_errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    RuntimeError,
    ValueError,
)
_STEP_ERRORS: tuple[type[Exception], ...] = (*_ORT_ERRORS, MemoryError)

# A graph of a single Neg on one float: IR 8, opset 13. Small enough to try a device with.
_PROBE_GRAPH = (
    b'\x08\x08:2\n\x0b\n\x01x\x12\x01y"\x03Neg\x12\x01pZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12'
    b"\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def runtime_version() -> str:
    """Version of ONNX Runtime."""
    return str(ort.__version__)


def probe_cuda(index: int) -> str | None:
    """Run a graph of one node on a CUDA device.

    Returns:
        None if it ran there, else the reason why not, without a full stop.
    """
    if CUDA_PROVIDER not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} was built without CUDA"
    messages = io.StringIO()
    ort.set_default_logger_severity(_FATAL)
    try:
        if hasattr(ort, "preload_dlls"):
            with contextlib.redirect_stdout(messages):  # it prints what it does not find
                ort.preload_dlls()
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        session = ort.InferenceSession(
            _PROBE_GRAPH,
            options,
            providers=[(CUDA_PROVIDER, {"device_id": str(index)})],
            enable_fallback=0,
        )
        if CUDA_PROVIDER not in session.get_providers():
            missing = messages.getvalue().strip().splitlines()
            return missing[0] if missing else "its libraries or the driver do not load"
        session.run(None, {"x": np.ones(1, np.float32)})
    except _ORT_ERRORS as error:
        return _first_line(error)
    finally:
        ort.set_default_logger_severity(_WARNING)
    return None


def run_once(
    model: bytes, inputs: Mapping[str, NDArray[Any]], device: Device, library: Path
) -> list[NDArray[Any]]:
    """Run a small model once, for self-checks; nothing of it is kept.

    Args:
        model: an ONNX model.
        inputs: arrays by input name.
        device: where to run it.
        library: operators to register.

    Raises:
        OperatorLibraryError: the library does not load, or the model does not run with it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    try:
        options.register_custom_ops_library(str(library))
        session = ort.InferenceSession(model, options, providers=[device.provider])
        return [np.asarray(value) for value in session.run(None, dict(inputs))]
    except _ORT_ERRORS as error:
        raise OperatorLibraryError(
            f"{library} does not run on {device}: {_first_line(error)}.",
            "Install the package again, or use --operators portable.",
        ) from None


class DeviceTensors:
    """One OrtValue per state tensor, on one device; blank.

    Args:
        state: which tensors there are.
        device: where they lie.
        lender: whose memory the tensors named in ``shared`` use instead of their own.
        shared: names of such tensors.
    """

    def __init__(
        self,
        state: spec.StateSpec,
        device: Device,
        lender: DeviceTensors | None = None,
        shared: frozenset[str] = frozenset(),
    ) -> None:
        self.values: dict[str, ort.OrtValue] = {}
        self.nbytes = 0
        self._arrays: dict[str, NDArray[Any]] = {}
        for layer, tensor in state:
            name = spec.past_name(layer, tensor.name)
            if lender is not None and name in shared:
                self.values[name] = lender.values[name]
                if name in lender._arrays:
                    self._arrays[name] = lender._arrays[name]
                continue
            array = np.zeros(tensor.shape, tensor.element)
            self.nbytes += tensor.nbytes
            if device.name == "cpu":  # the OrtValue then uses the array's memory
                self._arrays[name] = array
                self.values[name] = ort.OrtValue.ortvalue_from_numpy(array)
            else:
                self.values[name] = ort.OrtValue.ortvalue_from_numpy(
                    array, device.name, device.index
                )

    def read(self, name: str) -> NDArray[Any]:
        """The tensor as a host array: the memory itself on the CPU, a copy on a GPU."""
        array = self._arrays.get(name)
        if array is None:
            array = self.values[name].numpy()
        return array

    def write(self, name: str, values: NDArray[Any]) -> None:
        """Overwrite the tensor; shape and type must be its own."""
        array = self._arrays.get(name)
        if array is None:
            self.values[name].update_inplace(values)
        else:
            np.copyto(array, values, casting="no")

    def copy_from(self, other: Tensors) -> None:
        """Overwrite all tensors with those of another state of the same model."""
        for name in self.values:
            self.write(name, other.read(name))


class DeviceBuffers:
    """The state tensors of one session, bound to the graph once.

    Where one of our own kernels renews a tensor, input and output share the buffer. Everywhere
    else a graph may still read the old state after it wrote the new one, so a second set takes
    turns with the first.
    """

    def __init__(
        self, session: ort.InferenceSession, package: Package, device: Device, in_place: bool
    ) -> None:
        state = package.manifest.state
        self._vocab = package.manifest.backbone.vocab_size
        self._sets = [DeviceTensors(state, device)]
        shared = package.scan.in_place if in_place else frozenset[str]()
        if any(spec.past_name(layer, t.name) not in shared for layer, t in state):
            self._sets.append(DeviceTensors(state, device, self._sets[0], shared))
        self.nbytes = sum(tensors.nbytes for tensors in self._sets)
        self._position = np.zeros(1, np.int64)
        self._position_value = ort.OrtValue.ortvalue_from_numpy(self._position)
        self._inputs: dict[str, tuple[Ids, ort.OrtValue]] = {}
        self._row = np.zeros((1, 1, self._vocab), np.float32)
        self._row_value = ort.OrtValue.ortvalue_from_numpy(self._row)
        self._at = 0
        self._bindings = [self._bind(session, state, i) for i in range(len(self._sets))]

    @property
    def current(self) -> DeviceTensors:
        """The state after the last step."""
        return self._sets[self._at]

    def _bind(
        self, session: ort.InferenceSession, state: spec.StateSpec, index: int
    ) -> ort.IOBinding:
        binding = session.io_binding()
        old, new = self._sets[index], self._sets[(index + 1) % len(self._sets)]
        for layer, tensor in state:
            name = spec.past_name(layer, tensor.name)
            binding.bind_ortvalue_input(name, old.values[name])
            binding.bind_ortvalue_output(spec.present_name(layer, tensor.name), new.values[name])
        binding.bind_ortvalue_input(spec.POSITION, self._position_value)
        return binding

    def run(self, session: ort.InferenceSession, ids: Ids, position: int, rows: Ids) -> Logits:
        """One step; on return ``current`` is the new state."""
        binding = self._bindings[self._at]
        self._position[0] = position
        binding.bind_ortvalue_input(spec.INPUT_IDS, self._input(spec.INPUT_IDS, ids[None]))
        binding.bind_ortvalue_input(spec.LOGIT_INDEX, self._input(spec.LOGIT_INDEX, rows))
        if len(rows) == 1:
            logits, value = self._row, self._row_value
        else:
            logits = np.empty((1, len(rows), self._vocab), np.float32)
            value = ort.OrtValue.ortvalue_from_numpy(logits)
        binding.bind_ortvalue_output(spec.LOGITS, value)
        session.run_with_iobinding(binding)
        self._at = (self._at + 1) % len(self._bindings)
        rows_of_logits: Logits = logits[0]
        return rows_of_logits

    def _input(self, name: str, values: Ids) -> ort.OrtValue:
        """An OrtValue with these values; the last one is used again if the shape is the same."""
        kept = self._inputs.get(name)
        if kept is None or kept[0].shape != values.shape:
            array = values.copy()
            kept = array, ort.OrtValue.ortvalue_from_numpy(array)
            self._inputs[name] = kept
        np.copyto(kept[0], values)
        return kept[1]


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
            except _ORT_ERRORS as error:
                return f"{library.path} does not load ({_first_line(error)})"
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
        except _STEP_ERRORS as error:
            raise SessionStateError(
                f"The step at position {position} failed: {_first_line(error)}.",
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
        except _ORT_ERRORS as error:
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
        return ModelFileError(f"{self.package.graph} does not load: {_first_line(error)}.", hint)


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # A pattern is kept for every length of a piece ever seen.
    options.enable_mem_pattern = False
    # A spinning thread takes the core from whatever else the machine is doing, us included.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:400].rstrip(".") if lines else type(error).__name__
