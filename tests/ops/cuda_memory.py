"""TTTMemory's CUDA kernels called through the shim, in any type of activations."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
from cases import Arrays
from cuda_host import run_on_host
from cuda_shim import CUDA, ShimLibrary

from allmem_ops.contract import Operator, Value

SOURCES = (*sorted(path.name for path in CUDA.glob("memory*.cu")), "entry/memory_entry.cu")
ELEMENTS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

CORES = {"ordinary_cores": 86, "matrix_instructions": 90}
"""Compute capabilities that choose either form of a piece's products."""


def run_memory(
    library: ShimLibrary,
    operator: Operator,
    inputs: Arrays,
    attributes: Mapping[str, Value],
    *,
    in_place: bool = False,
    element: str = "float32",
) -> Arrays:
    """One call with activations in ``element``; outputs in float32, whatever that is."""
    given = dict(inputs)
    for name in ("qkv", "control"):
        given[name] = inputs[name].astype(ELEMENTS[element])
    outputs = run_on_host(library, operator, given, attributes, in_place=in_place)
    return {name: array.astype(np.float32) for name, array in outputs.items()}
