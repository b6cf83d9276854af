"""One operator bound to tensors of a device, ready to be launched again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from allmem_ops.contract import Operator, Value
from allmem_ops.kernel_library import KernelLibrary, Prepared, describe


def element(tensor: Tensor) -> str:
    """The tensor's type as the operator table calls it."""
    return str(tensor.dtype).removeprefix("torch.")


def stream_of(device: torch.device) -> int:
    """The stream that PyTorch works on, as a number; 0 on the CPU."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


class BoundOperator:
    """An operator with its tensors, states in place; a launch neither allocates nor waits.

    Args:
        library: the kernels.
        operator: of the operator table.
        inputs: contiguous tensors on one device, by name.
        attributes: as on a node.

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
                past = torch.empty(call.output, dtype=activation, device=self._device)
            self.tensors[output.name] = past
        for name, tensor in self.tensors.items():
            if not tensor.is_contiguous() or tensor.device != self._device:
                raise ValueError(f"{name} is not contiguous on {self._device}")
        addresses = {name: tensor.data_ptr() for name, tensor in self.tensors.items()}
        self.scratch_bytes = library.scratch_bytes(call, addresses)
        # 256 to spare: an allocator for the CPU aligns to less than the kernels need.
        size = self.scratch_bytes + 256
        self._block = torch.empty(size, dtype=torch.uint8, device=self._device)
        begin = self._block.data_ptr()
        self._launch = Prepared(library, call, addresses, begin + -begin % 256)

    def launch(self) -> None:
        """Put the work on PyTorch's current stream.

        Raises:
            LaunchError: CUDA refused it.
        """
        self._launch(stream_of(self._device))


def launch_all(operators: Sequence[BoundOperator]) -> None:
    """Put the work of each on the stream, one after the other."""
    for one in operators:
        one.launch()
