"""SlidingWindowAttention's CUDA kernels as a backend, on the CPU through the shim."""

from __future__ import annotations

from collections.abc import Mapping

from cases import Arrays
from cuda_host import run_on_host
from cuda_shim import CUDA, ShimLibrary

from allmem_ops.contract import Operator, Value

SOURCES = (*sorted(path.name for path in CUDA.glob("attention*.cu")), "entry/attention_entry.cu")


class CudaAttention:
    """Runs nodes; ``offset`` moves all tensors off the alignment that a device gives them."""

    def __init__(self, library: ShimLibrary, offset: int = 0) -> None:
        self._library = library
        self._offset = offset

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        """See ``cases.Backend``."""
        return run_on_host(
            self._library, operator, inputs, attributes, in_place=in_place, offset=self._offset
        )
