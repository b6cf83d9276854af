"""Both operators' CUDA kernels on a device, as one backend: the kernels' own library and PyTorch.

The tensors lie where ``device`` says. On the CPU the library must be one that runs there: that is
how the backend itself is tried where no device is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from cases import BACKENDS, Arrays
from numpy.typing import NDArray

from allmem_ops.contract import Operator, Value
from allmem_ops.kernel_build import find
from allmem_ops.kernel_library import KernelLibrary, Prepared, Unavailable, describe

GUARD = 4096


def to_tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy on the device; bfloat16 goes by its bits, which PyTorch does not take from NumPy."""
    if array.dtype.name == "bfloat16":
        bits = torch.from_numpy(np.ascontiguousarray(array).view(np.int16).copy())
        return bits.to(device).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array).copy()).to(device)


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """A copy on the host."""
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        bits = tensor.detach().cpu().view(torch.int16).numpy()
        return bits.copy().view(ml_dtypes.bfloat16)
    return tensor.detach().cpu().numpy().copy()


def element(tensor: torch.Tensor) -> str:
    """The tensor's type as the operator table calls it."""
    return str(tensor.dtype).removeprefix("torch.")


class BoundOperator:
    """An operator with its tensors; a launch neither allocates nor waits.

    Args:
        library: the kernels.
        operator: of the operator table.
        inputs: contiguous tensors on one device, by name.
        attributes: as on a node.
        in_place: each state is one tensor, in and out.
        guard: bytes kept around the scratch; ``guards_are_intact`` looks at them.

    Attributes:
        tensors: inputs and outputs, by name.
        scratch_bytes: what the launch asks for.
    """

    def __init__(
        self,
        library: KernelLibrary,
        operator: Operator,
        inputs: Mapping[str, torch.Tensor],
        attributes: Mapping[str, Value],
        *,
        in_place: bool = True,
        guard: int = 0,
    ) -> None:
        self.tensors = dict(inputs)
        self._device = inputs["qkv"].device
        activation = inputs["qkv"].dtype
        cache = element(inputs["past_key"]) if "past_key" in inputs else "float32"
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        call = describe(operator, shapes, attributes, element(inputs["qkv"]), cache)
        for output in operator.outputs:
            past = self.tensors.get(output.name.replace("present_", "past_", 1))
            if past is None:
                made = torch.full(call.output, torch.nan, dtype=activation, device=self._device)
            else:
                made = past if in_place else torch.full_like(past, torch.nan)
            self.tensors[output.name] = made
        for name, tensor in self.tensors.items():
            if not tensor.is_contiguous() or tensor.device != self._device:
                raise ValueError(f"{name} is not contiguous on {self._device}")
        addresses = {name: tensor.data_ptr() for name, tensor in self.tensors.items()}
        self.scratch_bytes = library.scratch_bytes(call, addresses)
        self._guard = guard
        size = self.scratch_bytes + 2 * guard
        # 256 to spare: an allocator for the CPU aligns to less than the kernels need.
        self._block = torch.empty(size + 256, dtype=torch.uint8, device=self._device)
        self._begin = -self._block.data_ptr() % 256
        self._block = self._block[self._begin : self._begin + size]
        if guard:
            self._block.fill_(0xFF)
        scratch = self._block.data_ptr() + guard
        self._launch = Prepared(library, call, addresses, scratch)

    def launch(self) -> None:
        """Put the work on PyTorch's current stream.

        Raises:
            LaunchError: CUDA refused it.
        """
        on_card = self._device.type == "cuda"
        self._launch(torch.cuda.current_stream(self._device).cuda_stream if on_card else 0)

    def guards_are_intact(self) -> bool:
        """Whether nothing was written beside the scratch."""
        before, after = self._block[: self._guard], self._block[self._guard + self.scratch_bytes :]
        return bool((before == 0xFF).all() and (after == 0xFF).all())


class CudaDevice:
    """Runs nodes on a device."""

    def __init__(self, library: KernelLibrary, device: str = "cuda") -> None:
        self.library = library
        self.device = torch.device(device)

    def bind(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> BoundOperator:
        """The operator with copies of the inputs on the device."""
        tensors = {name: to_tensor(array, self.device) for name, array in inputs.items()}
        return BoundOperator(
            self.library, operator, tensors, attributes, in_place=in_place, guard=GUARD
        )

    def wait(self) -> None:
        """Until all work is done; errors of the kernels come up here."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        """See ``cases.Backend``."""
        bound = self.bind(operator, inputs, attributes, in_place=in_place)
        bound.launch()
        self.wait()
        if not bound.guards_are_intact():
            raise AssertionError("the kernels wrote beside their scratch")
        for name, array in inputs.items():
            if not (in_place and name.startswith("past_")):
                kept = to_array(bound.tensors[name])
                np.testing.assert_array_equal(kept, array, err_msg=f"{name} was written to")
        return {tensor.name: to_array(bound.tensors[tensor.name]) for tensor in operator.outputs}


def architecture() -> str:
    """Compute capability of the current device, ``90`` for example."""
    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}"


def cuda_device() -> CudaDevice:
    """The backend.

    Raises:
        Unavailable: there is no device, or no library for it; the text says what to do.
    """
    if not torch.cuda.is_available():
        raise Unavailable(
            f"PyTorch {torch.__version__} sees no CUDA device: a driver, a card and a PyTorch "
            "built with CUDA are needed"
        )
    return CudaDevice(KernelLibrary(find(architecture())))


BACKENDS["cuda"] = cuda_device
