"""Matrices as integers of 4 or 8 bits in blocks of 32, as our QuantisedMatMul reads them.

Four bits are scale x number + minimum, eight bits scale x (number - 128); scales and minimums are
float16. That holds Q4_1 and Q8_0 of GGUF without loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from allmem_exporters.errors import ExportError
from allmem_exporters.quantization.matmul_nbits import BLOCK, SHRINK, divisor, in_pieces, symmetric
from allmem_ops.reference.product import interleaved, interleaved_scales, weights_of

_NORMAL = 2.0**-14
"""The least normal float16. Below it scales are rounded up, so that the ends of a block stay."""


@dataclass(frozen=True, slots=True)
class AffineBlocks:
    """A matrix [rows, columns] of integers; the last block of a row is padded.

    Args:
        numbers: [rows, blocks, BLOCK] uint8, one number an element.
        scales: [rows, blocks] float16.
        minimums: likewise with 4 bits; None with 8.
        columns: of the matrix.
    """

    numbers: NDArray[np.uint8]
    scales: NDArray[np.float16]
    minimums: NDArray[np.float16] | None
    columns: int

    @property
    def bits(self) -> int:
        """4 or 8."""
        return 8 if self.minimums is None else 4

    def stored_numbers(self) -> NDArray[np.uint8]:
        """As the operator's input."""
        return interleaved(self.numbers, self.bits)

    def stored_scales(self) -> NDArray[np.float16]:
        """As the operator's input."""
        return interleaved_scales(*(k for k in (self.scales, self.minimums) if k is not None))

    def widened(self) -> NDArray[np.float32]:
        """The matrix [rows, columns] that is stored, read from what is stored."""
        rows = len(self.numbers)
        wide = weights_of(self.stored_numbers(), self.stored_scales(), rows, self.bits)
        return wide[:, : self.columns].astype(np.float32)


def quantize_blocks(
    matrix: NDArray[np.float32] | Tensor, bits: int, name: str = "a matrix"
) -> AffineBlocks:
    """Round ``matrix`` [rows, columns] to integers, each block by itself.

    Args:
        matrix: rows are outputs, columns inputs; writable if it is no tensor.
        bits: 4 or 8.
        name: of the matrix, for an error.

    Raises:
        ExportError: a scale or a minimum is beyond float16, or a weight is not finite.
    """
    wide = matrix if isinstance(matrix, Tensor) else torch.from_numpy(matrix)
    wide = wide.detach().float()
    rows, columns = wide.shape
    count = -(-columns // BLOCK)
    blocks = functional.pad(wide, (0, count * BLOCK - columns)).reshape(-1, BLOCK)
    numbers, *kinds = in_pieces(_eight if bits == 8 else _four, blocks, rows)
    if not all(bool(kind.isfinite().all()) for kind in kinds):
        raise ExportError(
            f"The weight {name!r} reaches {float(wide.abs().max()):g}: in {bits} bits it needs "
            "scales that float16 cannot hold.",
            "Export with --matmul-kernel onnxruntime, whose scales are float32, or with "
            "--weights float32.",
        )
    scales, *minimums = (kind.numpy() for kind in kinds)
    return AffineBlocks(numbers.numpy(), scales, minimums[0] if minimums else None, columns)


def _eight(blocks: Tensor) -> tuple[Tensor, ...]:
    """(numbers, scales) of blocks [n, BLOCK]: 128 stands for nothing."""
    levels, scales = symmetric(blocks, _half)
    return (levels + 128).to(torch.uint8), scales


def _four(blocks: Tensor) -> tuple[Tensor, ...]:
    """(numbers, scales, minimums) of blocks [n, BLOCK], the best of several ranges."""
    low, high = blocks.amin(-1), blocks.amax(-1)
    middle, size = (low + high) / 2, (high - low) / 2
    best_error = torch.full_like(low, float("inf"))
    best = (torch.zeros_like(blocks, dtype=torch.uint8), _half(2 * size / 15), low.half())
    for shrink in SHRINK:
        step = divisor(2 * size * shrink / 15)
        first = (middle - size * shrink)[:, None]
        levels = torch.round((blocks - first) / step[:, None]).clamp_(0, 15)
        # The scale and minimum that fit these numbers best, then the numbers that fit those.
        mean, center = levels.mean(-1), blocks.mean(-1)
        apart = levels - mean[:, None]
        exact = (apart * blocks).sum(-1) / divisor(apart.square().sum(-1))
        scale = _half(exact)
        minimum = (center - exact * mean).half()
        numbers = _levels(blocks, scale, minimum.float()[:, None])
        stored = numbers.float() * scale.float()[:, None] + minimum.float()[:, None]
        error = (blocks - stored).square().sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = (
            torch.where(better[:, None], numbers, best[0]),
            torch.where(better, scale, best[1]),
            torch.where(better, minimum, best[2]),
        )
    return best


def _levels(blocks: Tensor, scales: Tensor, zero: Tensor) -> Tensor:
    """The nearest integers, 0 to 15."""
    levels = torch.round((blocks - zero) / divisor(scales.float())[:, None])
    return levels.clamp_(0, 15).to(torch.uint8)


def _half(scales: Tensor) -> Tensor:
    """Scales in float16; small ones, of few digits, are rounded up."""
    narrow = scales.half()
    short = (narrow.float() < scales * (1 - 2.0**-11)) & (scales < _NORMAL)
    following = (narrow.view(torch.int16) + 1).view(torch.float16)
    return torch.where(short, following, narrow)
