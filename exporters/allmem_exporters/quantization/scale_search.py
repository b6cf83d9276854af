"""Scales with which a block of weights may round best, and the best of them for 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from allmem_exporters.quantization.blocks import divisor

SHRINK = (1.0, 0.95, 0.9, 0.85)
"""Factors on the range of a block that are tried in 4 bits: without its ends the rest may round
better."""

TOPS = range(127, 95, -1)
"""What a block's largest weight is tried as, in 8 bits. Weights of 16 levels, as those that had 4
bits before, lie near integers for some of them: a quarter of the squared error is left that
127 alone makes, of other weights four fifths."""


def symmetric(blocks: Tensor, stored: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(numbers, scales) of blocks [n, BLOCK], the best of TOPS; 128 stands for nothing.

    Only the scales of the best are kept on the way, and one buffer serves all attempts.

    Args:
        blocks: float32 weights; where one is not finite, the scale of its block is not either.
        stored: scales as they are stored, of float32.

    Returns:
        [n, BLOCK] uint8 from 1 to 255, and [n] as ``stored`` makes them. A weight is scale x
        (number - 128).
    """
    largest = blocks.abs().amax(-1)
    best_error = torch.full_like(largest, float("inf"))
    best_scales = stored(largest / TOPS[0])
    buffer = torch.empty_like(blocks)
    for top in TOPS:
        scales = stored(largest / top)
        step = scales.float()[:, None]
        error = levels_of(blocks, step, buffer).mul_(step).sub_(blocks).square_().sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scales = torch.where(better, scales, best_scales)
    levels = levels_of(blocks, best_scales.float()[:, None], buffer)
    # What is not finite has no levels.
    levels.masked_fill_(best_error.isinf()[:, None], 0)
    return levels.add_(128).to(torch.uint8), best_scales


def levels_of(blocks: Tensor, step: Tensor, out: Tensor) -> Tensor:
    """The nearest integers, -127 to 127, still floats."""
    return torch.div(blocks, divisor(step), out=out).round_().clamp_(-127, 127)
