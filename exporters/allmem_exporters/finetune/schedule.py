"""Learning-rate schedule of a run (warm up, stay, decay), and what each step draws."""

from __future__ import annotations

import math

import numpy as np

from allmem_exporters.finetune.passes import Shape
from allmem_exporters.finetune.settings import Draws


def learning_rate_factor(step: int, steps: int, warmup: float, decay: float) -> float:
    """Warm-up, stable, decay: the factor on the learning rate at a step.

    Args:
        step: counted from 0.
        steps: of the whole run.
        warmup: fraction of the steps over which the factor rises linearly from near 0 to 1.
        decay: fraction of the steps over which it falls linearly from 1 to near 0.

    Returns:
        In (0, 1].
    """
    rising = (step + 1) / max(1.0, warmup * steps)
    falling = (steps - step) / max(1.0, decay * steps)
    return min(1.0, rising, falling)


def draw_shape(draws: Draws, seed: int, step: int) -> Shape:
    """Window, sinks and chunk of a step: the same for the same seed and step.

    Window and chunk are uniform in the logarithm and multiples of 16, the chunk at most the
    window; sinks are uniform.
    """
    generator = np.random.default_rng([seed, step, 1])

    def logarithmic(bounds: tuple[int, int]) -> int:
        low, high = bounds
        exponent = generator.uniform(math.log(low), math.log(high))
        return min(high, max(low, round(math.exp(exponent) / 16) * 16))

    window, chunk = logarithmic(draws.window), logarithmic(draws.chunk)
    sinks = int(generator.integers(draws.sinks[0], draws.sinks[1] + 1))
    return Shape(window, sinks, min(window, chunk))


def order(count: int, seed: int, epoch: int) -> list[int]:
    """Which sequence comes when in an epoch: a permutation of ``count`` numbers."""
    return [int(i) for i in np.random.default_rng([seed, epoch, 2]).permutation(count)]
