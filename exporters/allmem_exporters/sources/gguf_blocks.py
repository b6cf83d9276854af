"""Scales and minimums of GGUF's blocks of 32 weights, of the kinds that a stored format may hold.

In all of them a weight is scale x number + minimum. Most begin with these factors in float16; those
of Q4_K are products of a float16 with six bits, which float16 holds only rounded.
Layout: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray
from torch import Tensor

from allmem_exporters.sources.gguf_file import GgufFile

_FactorsOf = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Of blocks [rows, blocks, bytes]: scale and minimum of each 32 weights [rows, blocks of 32, 2]."""


@dataclass(frozen=True, slots=True)
class _Float16:
    """Blocks of 32 that begin with a float16 scale.

    Args:
        least: number of the least weight, where the minimum follows from the scale; None where the
            minimum is stored behind the scale.
    """

    least: int | None

    def __call__(self, blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
        factors = _halves(blocks[..., :4])
        if self.least is not None:
            factors[..., 1] = factors[..., 0] * self.least
        return factors


def _q4_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Eight blocks of 32 share two float16 and have six bits of their own for each of them."""
    packed = blocks[..., 4:16]
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    low = np.stack([first, second], axis=-1) & 63
    high = np.stack([third & 15, third >> 4], axis=-1)
    high |= np.stack([first, second], axis=-1) >> 6 << 4
    small = np.concatenate([low, high], axis=-2).astype(np.float32)
    small[..., 1] *= -1
    factors = small * _halves(blocks[..., :4])[..., None, :]
    return factors.reshape(blocks.shape[0], -1, 2)


def _halves(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(stored).view(np.float16).astype(np.float32)


_KINDS: dict[GGMLQuantizationType, _FactorsOf] = {
    GGMLQuantizationType.Q4_0: _Float16(-8),
    GGMLQuantizationType.Q4_1: _Float16(None),
    GGMLQuantizationType.Q5_0: _Float16(-16),
    GGMLQuantizationType.Q8_0: _Float16(-128),
    GGMLQuantizationType.Q4_K: _q4_k,
}


def block_factors(file: GgufFile, name: str, first: int, end: int) -> Tensor | None:
    """Scale and minimum of each 32 weights.

    Args:
        file: the GGUF file.
        name: of the tensor there.
        first: row.
        end: last row + 1.

    Returns:
        [rows, blocks of 32, 2] float32; None for other kinds.
    """
    tensor = file.tensors[name]
    factors_of = _KINDS.get(tensor.kind)
    if factors_of is None:
        return None
    nbytes = GGML_QUANT_SIZES[tensor.kind][1]
    return torch.from_numpy(
        factors_of(file.rows(name, first, end).reshape(end - first, -1, nbytes))
    )
