"""Four bits for QuantisedMatMul: scale x number + minimum.

Holds Q4_1 of GGUF without loss, and Q4_K but for the rounding of its scales and minimums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from allmem_exporters.quantization import quantized_matmul_int8 as int8
from allmem_exporters.quantization.blocks import divisor
from allmem_exporters.quantization.quantized_matmul import (
    HALF_DIGITS,
    QuantizedMatMulFormat,
    float16_scales,
)
from allmem_exporters.quantization.scale_search import SHRINK
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix


class QuantizedMatMulInt4(QuantizedMatMulFormat):
    """Numbers from 0 to 15; embedding and head, which four bits harm most, have eight."""

    weights = "int4"
    description = "4 bits, a float16 scale and minimum for 32 weights"
    bits = 4
    kinds = 2

    @property
    def table_format(self) -> StoredFormat:
        """Eight bits."""
        return int8.FORMAT

    def round_blocks(self, blocks: Tensor) -> tuple[Tensor, ...]:
        """See ``QuantizedMatMulFormat``; the best of several ranges."""
        low, high = blocks.amin(-1), blocks.amax(-1)
        middle, size = (low + high) / 2, (high - low) / 2
        center = blocks.mean(-1)
        best_error = torch.full_like(low, float("inf"))
        best_scale, best_minimum = float16_scales(2 * size / 15), low.half()
        buffer = torch.empty_like(blocks)
        for shrink in SHRINK:
            step = divisor(2 * size * shrink / 15)
            first = (middle - size * shrink)[:, None]
            levels = torch.sub(blocks, first, out=buffer).div_(step[:, None]).round_()
            levels.clamp_(0, 15)
            # The scale and minimum that fit these numbers best, then the numbers that fit those.
            mean = levels.mean(-1)
            apart = levels.sub_(mean[:, None])
            exact = (apart * blocks).sum(-1) / divisor(apart.square_().sum(-1))
            scale = float16_scales(exact)
            minimum = (center - exact * mean).half()
            wide_scale, wide_minimum = scale.float()[:, None], minimum.float()[:, None]
            stored = _levels(blocks, wide_scale, wide_minimum, buffer)
            stored.mul_(wide_scale).add_(wide_minimum)
            error = torch.sub(blocks, stored, out=buffer).square_().sum(-1)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, scale, best_scale)
            best_minimum = torch.where(better, minimum, best_minimum)
        best = _levels(blocks, best_scale.float()[:, None], best_minimum.float()[:, None], buffer)
        # What is not finite has no levels.
        best.masked_fill_(best_error.isinf()[:, None], 0)
        return best.to(torch.uint8), best_scale, best_minimum

    def numbers_with(self, blocks: Tensor, scales: Tensor, minimums: Tensor) -> tuple[Tensor, ...]:
        """See ``QuantizedMatMulFormat``."""
        scale, minimum = scales.float()[:, None], minimums.float()[:, None]
        levels = _levels(blocks, scale, minimum, torch.empty_like(blocks)).nan_to_num_(0)
        return levels.to(torch.uint8), scales.clone(), minimums.clone()

    def widen(self, numbers: Tensor, factors: Tensor) -> Tensor:
        """See ``QuantizedMatMulFormat``; the product is exact in float32, the sum rounded once."""
        return numbers.mul_(factors[..., 0, :]).add_(factors[..., 1, :])

    def rounding_of_factors(self, factors: Tensor) -> Tensor:
        """See ``QuantizedMatMulFormat``."""
        return (15 * factors[:, 0].abs() + factors[:, 1].abs()) * HALF_DIGITS

    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """Half of fifteen steps between the ends, and what float16 takes from scale and minimum."""
        low, high = blocks.amin(-1), blocks.amax(-1)
        span, largest = high - low, blocks.abs().amax(-1)
        return span / 30 + (span + largest) * 2.0**-9 + 2.0**-20


FORMAT = QuantizedMatMulInt4()


def _levels(blocks: Tensor, scales: Tensor, minimums: Tensor, out: Tensor) -> Tensor:
    """The nearest integers, 0 to 15, still floats."""
    return torch.sub(blocks, minimums, out=out).div_(divisor(scales)).round_().clamp_(0, 15)
