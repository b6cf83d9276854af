"""Four bits for MatMulNBits: scale x (number - zero point).

They do not hold Q4_1 of GGUF, whose zero points lie between integers: rounding them costs a fifth
of the perplexity of a small model, as much as the first quantization did. So what zero points lack
becomes columns of its own, which meet the sums of the input's blocks:
x W = [x, sums of x] [numbers; offsets].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from allmem_exporters.quantization import matmul_nbits_int8 as int8
from allmem_exporters.quantization.blocks import (
    BLOCK,
    Matrix,
    block_count,
    divisor,
    in_blocks,
    row_pieces,
)
from allmem_exporters.quantization.matmul_nbits import (
    MatMulNBitsFormat,
    Rounded,
    offset_blocks,
    packed,
    packed_zeros,
    product,
    register_parts,
)
from allmem_exporters.quantization.scale_search import SHRINK
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix

_LATTICE_SHARE = 0.25
"""A matrix gets offsets if this share of its blocks was quantized to 16 levels before."""


class MatMulNBitsInt4(MatMulNBitsFormat):
    """With zero points, and with offsets where the matrix was quantized to 16 levels before.

    Embedding and head, which four bits harm most, have eight.
    """

    weights = "int4"
    description = "4 bits, a float32 scale and a zero point for 32 weights"
    bits = 4

    @property
    def table_format(self) -> StoredFormat:
        """Eight bits."""
        return int8.FORMAT

    def rounding(self, matrix: Matrix) -> Callable[[Tensor], Rounded]:
        """See ``MatMulNBitsFormat``."""
        if matrix.shape[1] % BLOCK or not _was_quantized(matrix):
            return _round_rows
        return _round_rows_with_offsets

    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """Half of fifteen steps, and how far the block is from zero, or what its offset lacks."""
        if not offset_blocks(stored):
            return _largest_error(blocks)
        *_, offsets = _on_levels(blocks.reshape(-1, BLOCK))
        groups = in_blocks(offsets.reshape(blocks.shape[:2]))
        # Of a group's 32 offsets one may have all of the squared error.
        each = _largest_error(groups) * BLOCK**0.5
        lost = each.repeat_interleave(BLOCK, dim=1)[:, : blocks.shape[1]]
        allowed: Tensor = (blocks.amax(-1) - blocks.amin(-1)) / 30 * (1 + 2.0**-10) + lost
        return allowed

    def inputs_of(
        self, model: ir.Model, node: ir.Node, x: ir.Value, stored: StoredMatrix
    ) -> ir.Value:
        """[x, sums of its blocks], which offsets meet."""
        if not offset_blocks(stored):
            return x
        sums, found = block_sums(stored.columns), model.graph.initializers
        parts = [f"{sums.name}.{part}" for part in ("numbers", "scales", "zeros")]
        made = [found[part] for part in parts] if parts[0] in found else register_parts(model, sums)
        summed = product(x, sums, made)
        joined = ir.node("Concat", [x, summed.outputs[0]], {"axis": -1})
        for part, what in ((summed, "sums"), (joined, "joined")):
            part.name = f"{node.name}.{what}"
            part.outputs[0].name = f"{node.outputs[0].name}.{what}"
            node.prepend(part)
        return joined.outputs[0]


FORMAT = MatMulNBitsInt4()


def block_sums(columns: int) -> StoredMatrix:
    """The matrix that sums the blocks of an input: [sums and padding, columns], exact."""
    count = block_count(columns)
    numbers = np.zeros((-(-count // BLOCK) * BLOCK, count, BLOCK), np.uint8)
    numbers[np.arange(count), np.arange(count)] = 1
    size = numbers.shape[:2]
    tensors = {
        "numbers": packed(numbers, 4),
        "scales": np.ones(size, np.float32),
        "zeros": packed_zeros(np.zeros(size, np.uint8), 4),
    }
    return StoredMatrix(f"block_sums.{columns}", MatMulNBitsInt4(), size[0], columns, tensors)


def _levels(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(lowest value, step, levels) of blocks [n, BLOCK] in 15 equal steps."""
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    step = (high - low) / 15
    return low, step, (blocks - low) / divisor(step)


def _was_quantized(matrix: Matrix) -> bool:
    """Whether enough blocks hold 16 levels at equal distances and nothing between."""
    on, counted = 0, 0
    for first, end in row_pieces(*matrix.shape):
        _, step, levels = _levels(in_blocks(matrix.rows(first, end)).reshape(-1, BLOCK))
        filled = step[:, 0] > 0
        on += int((((levels - levels.round()).abs().amax(-1) < 1e-2) & filled).sum())
        counted += int(filled.sum())
    return counted > 0 and on >= _LATTICE_SHARE * counted


def _round_rows(blocks: Tensor) -> Rounded:
    return tuple(
        found.reshape(*blocks.shape[:2], *found.shape[1:])
        for found in _round_blocks(blocks.reshape(-1, BLOCK))
    )


def _round_rows_with_offsets(blocks: Tensor) -> Rounded:
    """The same, and the offsets of each row as blocks of their own after the others."""
    rows, count, _ = blocks.shape
    *kinds, offsets = _on_levels(blocks.reshape(-1, BLOCK))
    own = [found.reshape(rows, count, *found.shape[1:]) for found in kinds]
    theirs = _round_rows(in_blocks(offsets.reshape(rows, count)))
    return tuple(torch.cat(pair, dim=1) for pair in zip(own, theirs, strict=True))


def _on_levels(blocks: Tensor) -> tuple[Tensor, ...]:
    """(numbers, scales, zero points, offsets): a weight is scale x (number - zero) + offset."""
    low, step, levels = _levels(blocks)
    zero = torch.round(-low / divisor(step)).clamp_(0, 15)
    offset = low + step * zero
    numbers, zeros = levels.round().to(torch.uint8), zero[:, 0].to(torch.uint8)
    return numbers, step[:, 0], zeros, offset[:, 0]


def _round_blocks(blocks: Tensor) -> tuple[Tensor, ...]:
    """(numbers, scales, zero points) of blocks [n, BLOCK], the best of several ranges."""
    low, high = blocks.amin(-1), blocks.amax(-1)
    best_error = torch.full_like(low, float("inf"))
    best = (torch.zeros_like(blocks), torch.zeros_like(low), torch.full_like(low, 8))
    for shrink in SHRINK:
        step = divisor((high - low) / 15 * shrink)
        zero = torch.round(7.5 - (high + low) / 2 / step).clamp_(0, 15)
        levels = torch.div(blocks, step[:, None]).round_().add_(zero[:, None]).clamp_(0, 15)
        levels -= zero[:, None]
        # The scale that fits these numbers best.
        scale = (levels * blocks).sum(-1) / divisor(levels.square().sum(-1))
        error = (levels * scale[:, None]).sub_(blocks).square_().sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = (
            torch.where(better[:, None], levels, best[0]),
            torch.where(better, scale, best[1]),
            torch.where(better, zero, best[2]),
        )
    levels, scale, zero = best
    return (levels + zero[:, None]).to(torch.uint8), scale, zero.to(torch.uint8)


def _largest_error(blocks: Tensor) -> Tensor:
    """Of ``_round_blocks``: half a step, and what zero points within 0 to 15 cannot reach."""
    low, high = blocks.amin(-1), blocks.amax(-1)
    away = torch.maximum(low, -high).clamp_(0)
    return ((high - low) / 30 + away) * (1 + 2.0**-10) + blocks.abs().amax(-1) * 2.0**-20
