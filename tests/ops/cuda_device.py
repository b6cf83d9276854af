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
from benchmarks.gpu import library as kernels
from benchmarks.gpu.bound import BoundOperator
from benchmarks.gpu.library import KernelLibrary

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
        raise kernels.Unavailable(
            f"PyTorch {torch.__version__} sees no CUDA device: a driver, a card and a PyTorch "
            "built with CUDA are needed"
        )
    return CudaDevice(KernelLibrary(kernels.find(architecture())))


BACKENDS["cuda"] = cuda_device
