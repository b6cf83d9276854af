"""What a context of a fixed size still holds when llama.cpp shifts it: arithmetic alone.

As in llama.cpp's own programs: when one more token would fill the context, the first half of what
follows the kept first tokens is discarded, and what is left moves down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LEAST = 4
"""Cells beyond the kept tokens with which there is something to discard."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Positions that go; those from ``end`` to ``held`` become smaller by ``end - first``.

    Args:
        first: the first that goes.
        end: the first that stays after it.
        held: how many tokens were held before.
    """

    first: int
    end: int
    held: int

    @property
    def by(self) -> int:
        """How many go."""
        return self.end - self.first


class Window:
    """Counts what is held, and says when to feed and when to discard.

    Args:
        size: tokens of the context; 0 for one that holds all it is given.
        keep: first tokens that are never discarded.

    Attributes:
        held: tokens that are held now.
        shifts: how often some were discarded.

    Raises:
        ValueError: the context is hardly larger than what is kept.
    """

    def __init__(self, size: int, keep: int) -> None:
        if size and size < keep + LEAST:
            raise ValueError(f"a context of {size} tokens that keeps {keep} cannot be shifted")
        self.size, self.keep = size, keep
        self.held = self.shifts = 0

    def parts(self, count: int, batch: int) -> Iterator[int | Discard]:
        """How ``count`` tokens are fed: numbers to feed at once, discards between them.

        Args:
            count: of tokens.
            batch: most at once.
        """
        while count:
            if self.size and self.held + 1 >= self.size:
                end = self.keep + (self.held - self.keep) // 2
                yield Discard(self.keep, end, self.held)
                self.held -= end - self.keep
                self.shifts += 1
            room = self.size - 1 - self.held if self.size else count
            part = min(count, batch, room)
            yield part
            self.held += part
            count -= part
