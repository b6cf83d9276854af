"""The memory of one session: state tensors bound to the graph as inputs and outputs once."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from allmem_runtime import spec
from allmem_runtime.engine.cuda_graph import UNCAPTURED, CapturedStep, run_options
from allmem_runtime.engine.devices import Device
from allmem_runtime.engine.mapped import mapped_zeros
from allmem_runtime.engine.piece_limits import Ids, Logits, piece_length
from allmem_runtime.engine.state_room import check_room
from allmem_runtime.engine.tensors import DeviceTensors, on_device
from allmem_runtime.files.package import Package
from allmem_runtime.state import zero

__all__ = ["DeviceBuffers", "DeviceTensors", "Ids", "Logits"]


class DeviceBuffers:
    """The state tensors of one session, bound to the graph once.

    Where one of our own kernels renews a tensor, input and output share the buffer. Everywhere
    else a graph may still read the old state after it wrote the new one, so a second set takes
    turns with the first.

    Args:
        session: the loaded model.
        package: its files.
        device: where it runs.
        in_place: whether our own kernels do the work.
        graphs: whether the session was loaded with CUDA graphs.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        package: Package,
        device: Device,
        in_place: bool,
        graphs: bool = False,
    ) -> None:
        self._session = session
        self._state = package.manifest.state
        self._vocab = package.manifest.backbone.vocab_size
        self._longest = piece_length(package.manifest)
        self._device = device
        shared = package.scan.in_place if in_place else frozenset[str]()
        twice = [t for layer, t in self._state if spec.past_name(layer, t.name) not in shared]
        check_room(package, device, self._state.nbytes + sum(t.nbytes for t in twice))
        self._sets = [DeviceTensors(self._state, device)]
        if twice:
            self._sets.append(DeviceTensors(self._state, device, self._sets[0], shared))
        self.nbytes = sum(tensors.nbytes for tensors in self._sets)
        self._position = np.zeros(1, np.int64)
        self._position_value = on_device(self._position, device)
        self._inputs: dict[str, tuple[Ids, ort.OrtValue]] = {}
        self._row = mapped_zeros([((1, 1, self._vocab), "float32")])[0]
        self._row_value = ort.OrtValue.ortvalue_from_numpy(self._row)
        self._at = 0
        self._bindings = [self._bind(i) for i in range(len(self._sets))]
        self._bound: list[tuple[ort.OrtValue, ...]] = [() for _ in self._bindings]
        for binding in self._bindings:
            binding.bind_ortvalue_input(spec.POSITION, self._position_value)
        self._options = run_options(UNCAPTURED) if graphs else None
        self._captured: CapturedStep | None = None

    @property
    def current(self) -> DeviceTensors:
        """The state after the last step."""
        return self._sets[self._at]

    def _bind(self, index: int) -> ort.IOBinding:
        binding = self._session.io_binding()
        old, new = self._sets[index], self._sets[(index + 1) % len(self._sets)]
        for layer, tensor in self._state:
            name = spec.past_name(layer, tensor.name)
            binding.bind_ortvalue_input(name, old.values[name])
            binding.bind_ortvalue_output(spec.present_name(layer, tensor.name), new.values[name])
        return binding

    def clear(self) -> None:
        """Make the state blank."""
        zero(self._state, self.current)

    def warm_up(self) -> None:
        """Run the longest piece, so that no later one needs more device memory.

        The state is blank before and after.
        """
        zeros = np.zeros(self._longest, np.int64)
        self.run(zeros, 0, zeros[:1])
        self.clear()

    def capture(self) -> None:
        """Capture the step of one token; the state is blank before and after.

        Raises:
            What ONNX Runtime raises: nothing was captured, and steps run as they did before.
        """
        step = CapturedStep(self._session, self._bind, len(self._sets), self._vocab, self._device)
        try:
            step.capture()
            self._captured = step
        finally:
            for tensors in self._sets:
                zero(self._state, tensors)

    def run(self, ids: Ids, position: int, rows: Ids) -> Logits:
        """One step; on return ``current`` is the new state."""
        if self._captured is not None and len(ids) == len(rows) == 1:
            logits = self._captured.run(self._at, int(ids[0]), position)
        else:
            logits = self._run_piece(ids, position, rows)
        self._at = (self._at + 1) % len(self._bindings)
        return logits

    def _run_piece(self, ids: Ids, position: int, rows: Ids) -> Logits:
        binding = self._bindings[self._at]
        self._position[0] = position
        if self._device.name != "cpu":
            self._position_value.update_inplace(self._position)
        if len(rows) == 1:
            logits, value = self._row, self._row_value
        else:
            logits = np.empty((1, len(rows), self._vocab), np.float32)
            value = ort.OrtValue.ortvalue_from_numpy(logits)
        inputs = self._input(spec.INPUT_IDS, ids[None]), self._input(spec.LOGIT_INDEX, rows)
        bound = *inputs, value
        # Host memory is copied to a device when it is bound, not when the model runs.
        if self._device.name != "cpu" or self._bound[self._at] != bound:
            binding.bind_ortvalue_input(spec.INPUT_IDS, inputs[0])
            binding.bind_ortvalue_input(spec.LOGIT_INDEX, inputs[1])
            binding.bind_ortvalue_output(spec.LOGITS, value)
            self._bound[self._at] = bound
        self._session.run_with_iobinding(binding, self._options)
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
