"""Numbers that were measured several times: the one in the middle, and how far they lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, lowest and highest of some measurements."""

    median: float
    lowest: float
    highest: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def map(self, change: Callable[[float], float]) -> Spread:
        """The same after a change that keeps order or turns it round."""
        ends = sorted([change(self.lowest), change(self.highest)])
        return Spread(change(self.median), ends[0], ends[1], self.count)

    def text(self, digits: int = 0) -> str:
        """``500 (480–510)``."""
        low, high = f"{self.lowest:,.{digits}f}", f"{self.highest:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({low}–{high})"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "median": self.median,
            "lowest": self.lowest,
            "highest": self.highest,
            "count": self.count,
        }
