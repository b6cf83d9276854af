"""One head's ring: the latest rows, and slots for rows chosen among those that leave the window."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.windows.elements import Element

SCORE_BYTES = 2
"""Of each row's score, a float16, where rows are chosen."""


@dataclass(frozen=True, slots=True)
class Ring:
    """What a head keeps.

    Attributes:
        element: type of its rows.
        latest: tokens of its window.
        slots: rows from before the window that are kept by their score.
    """

    element: Element
    latest: int
    slots: int = 0

    @property
    def rows(self) -> int:
        """All but the sinks."""
        return self.latest + self.slots

    def bytes(self, sinks: int, head_dim: int) -> int:
        """All that the head takes, the scores of all rows included where some are chosen."""
        scores = self.rows * SCORE_BYTES if self.slots else 0
        return self.element.bytes(self.rows, sinks, head_dim) + scores


def given_up(ring: Ring, sinks: int, scores: Sequence[float] | None, time: int) -> Tensor:
    """When each row is given up: [time], the first position that no longer finds it.

    A row that leaves the window takes a slot while one is free, then that of the lowest score if
    its own is higher; of equal scores the older row goes. Sinks are never given up.

    Args:
        ring: of the head.
        sinks: first tokens that all see.
        scores: of the rows [time]; may be None where there are no slots.
        time: length of the text.
    """
    gone = torch.arange(time) + ring.latest
    gone[:sinks] = torch.iinfo(gone.dtype).max
    if not ring.slots:
        return gone
    assert scores is not None
    kept: list[tuple[float, int]] = []
    for row in range(sinks, time):
        gone[row] = torch.iinfo(gone.dtype).max
        heapq.heappush(kept, (scores[row], row))
        if len(kept) > ring.slots:
            _, lowest = heapq.heappop(kept)
            gone[lowest] = row + ring.latest
    return gone
