"""State tensors on a device, bound to the graph as inputs and outputs once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from allmem_runtime import spec
from allmem_runtime.engine.devices import Device
from allmem_runtime.files.package import Package
from allmem_runtime.state import Tensors

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


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
