"""State tensors on a device: made blank, read, written and copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from allmem_runtime import spec
from allmem_runtime.engine.device_thread import device_thread
from allmem_runtime.engine.devices import Device
from allmem_runtime.engine.failures import ORT_ERRORS
from allmem_runtime.engine.mapped import mapped_zeros
from allmem_runtime.state import Tensors

_CANNOT_COPY: tuple[type[Exception], ...] = (TypeError, AttributeError, *ORT_ERRORS)


class DeviceTensors:
    """One OrtValue per state tensor, on one device; blank.

    On CUDA they do not come from the memory of the model's session: a captured graph goes on
    writing to addresses there that count as free, and would write over them.

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
        self.nbytes: int
        self._device = device
        self._thread = device_thread(device.name)
        self._arrays: dict[str, NDArray[Any]] = {}
        self._thread.do(lambda: self._make(state, lender, shared))

    def _make(
        self, state: spec.StateSpec, lender: DeviceTensors | None, shared: frozenset[str]
    ) -> None:
        named = {spec.past_name(layer, tensor.name): tensor for layer, tensor in state}
        own = {n: t for n, t in named.items() if lender is None or n not in shared}
        self.nbytes = sum(tensor.nbytes for tensor in own.values())
        if self._device.name == "cpu":  # the OrtValues then use the memory of the arrays
            arrays = mapped_zeros([(tensor.shape, tensor.element) for tensor in own.values()])
            self._arrays = dict(zip(own, arrays, strict=True))
        for name, tensor in named.items():
            if name not in own:
                assert lender is not None
                self.values[name] = lender.values[name]
                if name in lender._arrays:
                    self._arrays[name] = lender._arrays[name]
            elif name in self._arrays:
                self.values[name] = on_device(self._arrays[name], self._device)
            else:
                zeros = np.zeros(tensor.shape, tensor.element)
                self.values[name] = on_device(zeros, self._device)

    def read(self, name: str) -> NDArray[Any]:
        """The tensor as a host array: the memory itself on the CPU, a copy on a GPU."""
        array = self._arrays.get(name)
        if array is None:
            array = self._thread.do(self.values[name].numpy)
        return array

    def write(self, name: str, values: NDArray[Any]) -> None:
        """Overwrite the tensor; shape and type must be its own."""
        array = self._arrays.get(name)
        if array is None:
            self._thread.do(lambda: self.values[name].update_inplace(values))
        else:
            np.copyto(array, values, casting="no")

    def copy_from(self, other: Tensors) -> None:
        """Overwrite all tensors with those of another state of the same model."""
        if (
            isinstance(other, DeviceTensors)
            and self._same_card(other)
            and self._thread.do(lambda: self._copy_on_device(other))
        ):
            return
        for name in self.values:
            self.write(name, other.read(name))

    def _same_card(self, other: DeviceTensors) -> bool:
        ours, theirs = self._device, other._device
        return ours.name != "cpu" and (ours.name, ours.index) == (theirs.name, theirs.index)

    def _copy_on_device(self, other: DeviceTensors) -> bool:
        """Copy without the host; False if this version of ONNX Runtime cannot."""
        try:
            for name, value in self.values.items():
                value.update_inplace(other.values[name])
        except _CANNOT_COPY:
            return False
        # Such copies may still be on their way, on a stream that the model does not wait for;
        # a copy to the host comes after them.
        min(self.values.values(), key=lambda value: value.tensor_size_in_bytes()).numpy()
        return True


def on_device(array: NDArray[Any], device: Device) -> ort.OrtValue:
    """An OrtValue with these values: the array's own memory on the CPU, a copy elsewhere."""
    if device.name == "cpu":
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy(array, device.name, device.index)
