"""What two lists of words have in common in their order, and in passages that were moved."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

LEAST = 5
"""Words of a passage that counts as moved."""
_APART = ""
"""Stands between words that did not follow one another; no word."""
_KEPT = 256
"""Every so many rows of the table of common subsequences one is kept; the others are made again."""


class _Table:
    """The table of common subsequences, a row of bits for each word of the other list.

    A bit that is not set is a word by which the longest common subsequence grows: Crochemore et
    al., "A fast and practical bit-vector algorithm for the longest common subsequence problem"
    (2001).
    """

    def __init__(self, one: Sequence[str], other: Sequence[str]) -> None:
        self._places: dict[str, int] = {}
        for at, word in enumerate(one):
            self._places[word] = self._places.get(word, 0) | 1 << at
        self._every = (1 << len(one)) - 1
        self._other = other
        self._kept = [row := self._every]
        for at, word in enumerate(other, 1):
            row = self._next(row, word)
            if at % _KEPT == 0:
                self._kept.append(row)
        self.last = row
        self._block, self._rows = -1, [row]

    def _next(self, row: int, word: str) -> int:
        met = row & self._places.get(word, 0)
        return ((row + met) | (row - met)) & self._every

    def grows(self, row: int, column: int) -> bool:
        """Whether the longest grows by a word of the one, of what ``row`` words of the other have.

        Args:
            row: words of the other list.
            column: of the one list.
        """
        if row // _KEPT != self._block:
            self._block = row // _KEPT
            self._rows = [made := self._kept[self._block]]
            for word in self._other[self._block * _KEPT : (self._block + 1) * _KEPT]:
                self._rows.append(made := self._next(made, word))
        return not self._rows[row % _KEPT] >> column & 1


def common(one: Sequence[str], other: Sequence[str]) -> tuple[int, list[str], list[str]]:
    """The length of a longest common subsequence, and the words that each has beyond it.

    Returns:
        The length, then the words of the one and of the other that are not in the subsequence; an
        empty word stands between those that did not follow one another.
    """
    table = _Table(one, other)
    column, row = len(one), len(other)
    left: tuple[list[str], list[str]] = ([], [])
    while column and row:
        if not table.grows(row, column - 1):
            column -= 1
            left[0].append(one[column])
        elif table.grows(row - 1, column - 1):
            row -= 1
            left[1].append(other[row])
        else:
            column, row = column - 1, row - 1
            for words in left:
                if words and words[-1] != _APART:
                    words.append(_APART)
    left[0].extend(reversed(one[:column]))
    left[1].extend(reversed(other[:row]))
    length = len(one) - table.last.bit_count()
    return length, left[0][::-1], left[1][::-1]


def moved(one: Sequence[str], other: Sequence[str]) -> int:
    """Words in passages of ``LEAST`` or more that stand in both, wherever; each counts once."""
    first = [word or f"{_APART}{at}" for at, word in enumerate(one)]
    second = [word or f"{_APART}{at}-" for at, word in enumerate(other)]
    count = 0
    while True:
        found = SequenceMatcher(None, first, second, autojunk=False).find_longest_match()
        if found.size < LEAST:
            return count
        count += found.size
        first[found.a : found.a + found.size] = [f"{_APART}{count}"]
        second[found.b : found.b + found.size] = [f"{_APART}{count}-"]
