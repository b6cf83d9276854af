"""Both operators' CUDA kernels, on the CPU through the shim, as one backend."""

from __future__ import annotations

from collections.abc import Mapping

import cuda_attention
import cuda_memory
from cases import BACKENDS, Arrays
from cuda_shim import ShimLibrary, build

from allmem_ops.contract import Operator, Value


class CudaShim:
    """Runs nodes; libraries are built at the first node of an operator."""

    def __init__(self) -> None:
        self._libraries: dict[str, ShimLibrary] = {}

    def library(self, name: str, sources: tuple[str, ...]) -> ShimLibrary:
        """The library of one operator."""
        if name not in self._libraries:
            self._libraries[name] = ShimLibrary(build(name, sources, "-O1"))
        return self._libraries[name]

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        """See ``cases.Backend``."""
        if operator.name == "TTTMemory":
            memory = self.library("memory", cuda_memory.SOURCES)
            return cuda_memory.run_memory(memory, operator, inputs, attributes, in_place=in_place)
        attention = self.library("attention", cuda_attention.SOURCES)
        backend = cuda_attention.CudaAttention(attention)
        return backend.run(operator, inputs, attributes, in_place=in_place)


BACKENDS["cuda shim"] = CudaShim
