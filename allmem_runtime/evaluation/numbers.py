"""Means with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over samples.

    Args:
        value: the mean.
        error: its standard error; None where one sample cannot tell. Zero where all samples
            agree, which says that they agree, not that the mean is exact.
        count: of samples.
    """

    value: float
    error: float | None
    count: int

    def text(self, digits: int) -> str:
        """``mean ± error``, with this many digits after the point."""
        error = "?" if self.error is None else f"{self.error:.{digits}f}"
        return f"{self.value:.{digits}f} ± {error}"

    def as_json(self) -> dict[str, float | int | None]:
        """Plain values."""
        return {"mean": self.value, "standard_error": self.error, "count": self.count}


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> Mean | None:
    """The weighted mean of independent samples and its standard error; None without samples.

    The error is that of a ratio of sums, sum(w x) / sum(w), with n - 1 in place of n.

    Args:
        values: one a sample.
        weights: such as the tokens of each; equal by default.
    """
    count = len(values)
    if not count:
        return None
    w = [1.0] * count if weights is None else list(weights)
    total = sum(w)
    value = sum(x * v for x, v in zip(values, w, strict=True)) / total
    if count == 1:
        return Mean(value, None, 1)
    spread = sum((v * (x - value)) ** 2 for x, v in zip(values, w, strict=True))
    return Mean(value, math.sqrt(spread * count / (count - 1)) / total, count)


def average(means: Sequence[Mean | None]) -> Mean | None:
    """The mean of independent means, each with the same weight; None if one is missing."""
    known = [m for m in means if m is not None]
    if not known or len(known) < len(means):
        return None
    errors = [m.error for m in known]
    error = None
    if all(e is not None for e in errors):
        error = math.sqrt(sum(e * e for e in errors if e is not None)) / len(known)
    return Mean(sum(m.value for m in known) / len(known), error, sum(m.count for m in known))
