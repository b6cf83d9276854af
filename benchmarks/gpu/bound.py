"""One operator bound to tensors of a device, ready to be launched again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from allmem_ops.contract import Operator, Value
from benchmarks.gpu.calls import describe
from benchmarks.gpu.library import KernelLibrary, Prepared


def element(tensor: Tensor) -> str:
    """The tensor's type as the operator table calls it."""
    return str(tensor.dtype).removeprefix("torch.")


def stream_of(device: torch.device) -> int:
    """The stream that PyTorch works on, as a number; 0 on the CPU."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


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
        inputs: Mapping[str, Tensor],
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
        self._launch(stream_of(self._device))

    def guards_are_intact(self) -> bool:
        """Whether nothing was written beside the scratch."""
        before, after = self._block[: self._guard], self._block[self._guard + self.scratch_bytes :]
        return bool((before == 0xFF).all() and (after == 0xFF).all())


def launch_all(operators: Sequence[BoundOperator]) -> None:
    """Put the work of each on the stream, one after the other."""
    for one in operators:
        one.launch()
