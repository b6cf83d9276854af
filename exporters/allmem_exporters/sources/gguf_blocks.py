"""Scales and minimums of GGUF's blocks of 32 weights, of the kinds that a stored format may hold.

In all of them a weight is scale x number + minimum with float16 factors, which the block begins
with. Kinds whose factors are products (Q4_K, Q6_K and their like) have none that float16 holds.
Layout: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from allmem_exporters.sources.gguf_file import GgufFile


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where a block's factors lie.

    Args:
        least: number of the least weight, where the minimum follows from the scale; None where the
            minimum is stored behind the scale.
    """

    least: int | None


_KINDS = {
    GGMLQuantizationType.Q4_0: _Kind(-8),
    GGMLQuantizationType.Q4_1: _Kind(None),
    GGMLQuantizationType.Q5_0: _Kind(-16),
    GGMLQuantizationType.Q8_0: _Kind(-128),
}


def block_factors(file: GgufFile, name: str, first: int, end: int) -> Tensor | None:
    """Scale and minimum of each block.

    Args:
        file: the GGUF file.
        name: of the tensor there.
        first: row.
        end: last row + 1.

    Returns:
        [rows, blocks, 2] float32; None for other kinds.
    """
    tensor = file.tensors[name]
    kind = _KINDS.get(tensor.kind)
    if kind is None:
        return None
    nbytes = GGML_QUANT_SIZES[tensor.kind][1]
    blocks = file.rows(name, first, end).reshape(end - first, -1, nbytes)
    stored = np.ascontiguousarray(blocks[..., :4]).view(np.float16).astype(np.float32)
    factors = torch.from_numpy(stored)
    if kind.least is not None:
        factors[..., 1] = factors[..., 0] * kind.least
    return factors
