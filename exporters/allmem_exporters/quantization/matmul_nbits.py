"""Matrices as integers of 4 or 8 bits in blocks of 32, as MatMulNBits of ONNX Runtime reads.

A weight is scale x (number - zero point), with one scale and one zero point for 32 neighbors along
the inputs. Eight bits hold Q8_0 of GGUF without loss. Four bits do not hold Q4_1, whose zero points
lie between integers: rounding them costs a fifth of the perplexity of a small model, as much
as the first quantization did. So what zero points lack becomes columns of its own, which meet the
sums of the input's blocks: x W = [x, sums of x] [numbers; offsets].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BLOCK = 32
BITS = {"int4": 4, "int8": 8}

SHRINK = (1.0, 0.95, 0.9, 0.85)
"""Factors on the range of a block that are tried: without its ends the rest may round better."""

TOPS = range(127, 95, -1)
"""What a block's largest weight is tried as, in 8 bits. Weights of 16 levels, as those that had 4
bits before, lie near integers for some of them: a quarter of the squared error is left that
127 alone makes, of other weights four fifths."""

_ROWS = 1 << 12
"""Blocks that are rounded at once: more would leave the caches of a CPU."""

_LATTICE_SHARE = 0.25
"""A matrix gets offsets if this share of its blocks was quantized to 16 levels before."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix [rows, columns] of integers; the last block of a row is padded.

    Args:
        numbers: [rows, blocks, BLOCK] uint8, one number an element.
        scales: [rows, blocks] float32.
        zeros: [rows, blocks] uint8, or None where all are in the middle of the range.
        bits: 4 or 8.
        columns: of the matrix.
        offsets: blocks after those of the columns, which meet the sums of the input's blocks.
    """

    numbers: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8] | None
    bits: int
    columns: int
    offsets: int = 0

    @property
    def inputs(self) -> int:
        """What the product takes: the columns, then the sums and their padding."""
        return self.columns + self.offsets * BLOCK

    def packed(self) -> NDArray[np.uint8]:
        """[rows, blocks, BLOCK * bits / 8]; of two numbers in a byte the first lies low."""
        return _packed(self.numbers, self.bits)

    def packed_zeros(self) -> NDArray[np.uint8] | None:
        """[rows, ceil(blocks * bits / 8)], or None."""
        if self.zeros is None:
            return None
        odd = self.zeros.shape[1] * self.bits % 8 // 4
        return _packed(np.pad(self.zeros, ((0, 0), (0, odd))), self.bits)

    def widened(self) -> NDArray[np.float32]:
        """The matrix [rows, columns] that these numbers stand for."""
        zeros = 1 << (self.bits - 1) if self.zeros is None else self.zeros[..., None]
        wide = (self.numbers.astype(np.float32) - np.float32(zeros)) * self.scales[..., None]
        wide = wide.reshape(len(wide), -1)
        if self.offsets:
            shift = wide[:, self.columns :][:, : self.columns // BLOCK]
            return wide[:, : self.columns] + np.repeat(shift, BLOCK, axis=1)
        return wide[:, : self.columns]


def block_sums(columns: int) -> Blocks:
    """The matrix that sums the blocks of an input: [sums and padding, columns], exact."""
    count = columns // BLOCK
    numbers = np.zeros((-(-count // BLOCK) * BLOCK, count, BLOCK), np.uint8)
    numbers[np.arange(count), np.arange(count)] = 1
    return Blocks(
        numbers,
        np.ones(numbers.shape[:2], np.float32),
        np.zeros(numbers.shape[:2], np.uint8),
        4,
        columns,
    )


def _packed(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return np.ascontiguousarray(numbers)
    return np.ascontiguousarray(numbers[..., ::2] | numbers[..., 1::2] << 4)


def quantize(matrix: NDArray[np.float32] | Tensor, bits: int) -> Blocks:
    """Round ``matrix`` [rows, columns] to integers, each block by itself.

    Args:
        matrix: rows are outputs, columns inputs; writable if it is no tensor.
        bits: 8, symmetric; or 4, with zero points, and with offsets where the matrix was quantized
            to 16 levels before.
    """
    wide = matrix if isinstance(matrix, Tensor) else torch.from_numpy(matrix)
    wide = wide.detach().float()
    rows, columns = wide.shape
    count = -(-columns // BLOCK)
    blocks = functional.pad(wide, (0, count * BLOCK - columns)).reshape(-1, BLOCK)
    if bits == 8:
        return _joined([in_pieces(_eight, blocks, rows)], 8, columns)
    if columns % BLOCK or not _was_quantized(blocks):
        return _joined([in_pieces(_four, blocks, rows)], 4, columns)
    numbers, scales, zeros, shift = in_pieces(_four_with_offsets, blocks, rows)
    extra = -(-count // BLOCK)
    shift = functional.pad(shift, (0, extra * BLOCK - count)).reshape(-1, BLOCK)
    parts = [(numbers, scales, zeros), in_pieces(_four, shift, rows)]
    return _joined(parts, 4, columns, extra)


def in_pieces(rounding: object, blocks: Tensor, rows: int) -> tuple[Tensor, ...]:
    """Round blocks [n, BLOCK]; results [rows, blocks, …]."""
    assert callable(rounding)
    parts = [rounding(part) for part in blocks.split(_ROWS)]
    count = len(blocks) // rows
    whole = (torch.cat(kind) for kind in zip(*parts, strict=True))
    return tuple(found.reshape(rows, count, *found.shape[1:]) for found in whole)


def _joined(parts: list[tuple[Tensor, ...]], bits: int, columns: int, offsets: int = 0) -> Blocks:
    numbers, scales, *zeros = (torch.cat(kind, dim=1).numpy() for kind in zip(*parts, strict=True))
    return Blocks(numbers, scales, zeros[0] if zeros else None, bits, columns, offsets)


def _levels(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(lowest value, step, levels) of blocks [n, BLOCK] in 15 equal steps."""
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    step = (high - low) / 15
    return low, step, (blocks - low) / divisor(step)


def _was_quantized(blocks: Tensor) -> bool:
    """Whether enough blocks hold 16 levels at equal distances and nothing between."""
    on, counted = 0, 0
    for part in blocks.split(_ROWS):
        _, step, levels = _levels(part)
        filled = step[:, 0] > 0
        on += int((((levels - levels.round()).abs().amax(-1) < 1e-2) & filled).sum())
        counted += int(filled.sum())
    return counted > 0 and on >= _LATTICE_SHARE * counted


def _eight(blocks: Tensor) -> tuple[Tensor, ...]:
    """(numbers, scales) of blocks [n, BLOCK]: 128 stands for nothing."""
    levels, scales = symmetric(blocks, lambda scales: scales)
    return (levels + 128).to(torch.uint8), scales


def symmetric(blocks: Tensor, stored: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(integers, -127 to 127, still floats; scales) of blocks [n, BLOCK], the best of TOPS.

    Args:
        blocks: weights; where one is not finite, the scale of its block is not either.
        stored: scales as they are stored, of float32.
    """
    largest = blocks.abs().amax(-1)
    best_error = torch.full_like(largest, float("inf"))
    best_levels, best_scales = torch.zeros_like(blocks), stored(largest / TOPS[0])
    for top in TOPS:
        scales = stored(largest / top)
        step = scales.float()[:, None]
        levels = torch.round(blocks / divisor(step)).clamp_(-127, 127)
        error = (levels * step - blocks).square().sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_levels = torch.where(better[:, None], levels, best_levels)
        best_scales = torch.where(better, scales, best_scales)
    return best_levels, best_scales


def _four_with_offsets(blocks: Tensor) -> tuple[Tensor, ...]:
    """(numbers, scales, zero points, offsets): a weight is scale x (number - zero) + offset."""
    low, step, levels = _levels(blocks)
    zero = torch.round(-low / divisor(step)).clamp_(0, 15)
    offset = low + step * zero
    numbers, zeros = levels.round().to(torch.uint8), zero[:, 0].to(torch.uint8)
    return numbers, step[:, 0], zeros, offset[:, 0]


def _four(blocks: Tensor) -> tuple[Tensor, ...]:
    """(numbers, scales, zero points) of blocks [n, BLOCK], the best of several ranges."""
    low, high = blocks.amin(-1), blocks.amax(-1)
    best_error = torch.full_like(low, float("inf"))
    best = (torch.zeros_like(blocks), torch.zeros_like(low), torch.full_like(low, 8))
    for shrink in SHRINK:
        step = divisor((high - low) / 15 * shrink)
        zero = torch.round(7.5 - (high + low) / 2 / step).clamp_(0, 15)
        levels = (torch.round(blocks / step[:, None]) + zero[:, None]).clamp_(0, 15)
        levels -= zero[:, None]
        # The scale that fits these numbers best.
        square = levels.square().sum(-1)
        scale = (levels * blocks).sum(-1) / divisor(square)
        error = (blocks - levels * scale[:, None]).square().sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = (
            torch.where(better[:, None], levels, best[0]),
            torch.where(better, scale, best[1]),
            torch.where(better, zero, best[2]),
        )
    levels, scale, zero = best
    return (levels + zero[:, None]).to(torch.uint8), scale, zero.to(torch.uint8)


def divisor(x: Tensor) -> Tensor:
    """One where ``x`` is nothing: a block of zeros stays zero."""
    return torch.where(x == 0, 1.0, x)
