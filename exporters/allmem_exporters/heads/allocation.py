"""From what reach is worth and a budget of bytes to a window for every key/value head.

A head's windows are steps; each costs rows and takes some divergence away. Steps are taken in the
order of worth per row until the budget is spent, where a head's steps are first joined so that each
is worth less per row than the one before: what is taken then is the best for its bytes. The step
that no longer fits is taken in part, and what no step is worth anything for makes the shortest
windows longer, all alike.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from allmem_exporters.errors import ExportError
from allmem_exporters.heads.head_table import HeadTable
from allmem_runtime.quantities import format_bytes

BEYOND = 0.5
"""What twice the longest measured window is taken to be worth, as a share of the last step."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a row of a head's ring takes.

    Attributes:
        bytes: of a key and a value, scales included.
        sinks: rows of every head besides its window.
        most: longest window that may be given: what the model was trained for, less the sinks.
        beside: bytes of the state that are no rows.
    """

    bytes: int
    sinks: int
    most: int
    beside: int = 0

    def taken(self, window: int) -> int:
        """Bytes of a head with this window."""
        return (window + self.sinks) * self.bytes


@dataclass(frozen=True, slots=True)
class _Step:
    ratio: float  # worth per row
    layer: int
    head: int
    window: int


class _Point(NamedTuple):
    rows: float  # of ``Rows.bytes``
    worth: float  # so far
    window: int


def allocate(table: HeadTable, budget: int, rows: Rows, least: int) -> list[list[int]]:
    """Windows of each layer's heads.

    Args:
        table: what reach is worth.
        budget: bytes of the whole state.
        rows: what a row takes.
        least: shortest window that may be given; the chunk, or some tokens would be seen neither
            by a window nor by the memory.

    Returns:
        [layers][kv_heads], each at least ``least`` and the table's shortest window. All bytes are
        spent but for less than a row of each head, unless all windows are ``rows.most``.

    Raises:
        ExportError: the budget is too small for the shortest windows; says the least that is not.
    """
    base = max(table.windows[0], least)
    heads = sum(len(layer) for layer in table.worth)
    needed = rows.beside + heads * rows.taken(base)
    if needed > budget:
        raise ExportError(
            f"A state of {format_bytes(budget)} is too small: with {rows.sinks} sinks and the "
            f"shortest windows, of {base} tokens, {heads} heads and the memories take "
            f"{format_bytes(needed)}.",
            f"The least that works is --state-budget {needed}; fewer sinks, a smaller memory or "
            "int8 keys and values need less.",
        )
    windows = [[base] * len(layer) for layer in table.worth]
    left = budget - needed
    steps = [
        step
        for layer, row in enumerate(table.worth)
        for head, worth in enumerate(row)
        for step in _steps(table.windows, worth, base, rows, layer, head)
    ]
    for step in sorted(steps, key=lambda step: -step.ratio):  # stable: a head's steps in order
        own = windows[step.layer]
        now = own[step.head]
        own[step.head] = _longest(now, step.window, left, partial(_more, rows, [now]))
        left -= _more(rows, [now], own[step.head])
        if own[step.head] < step.window:
            break
    alike = [window for layer in windows for window in layer]
    level = _longest(base, rows.most, left, partial(_more, rows, alike))
    return [[max(window, level) for window in layer] for layer in windows]


def _more(rows: Rows, windows: Sequence[int], least: int) -> int:
    """Bytes that it takes to make none of these windows shorter than ``least``."""
    return sum(rows.taken(least) - rows.taken(own) for own in windows if own < least)


def _longest(low: int, high: int, left: int, more: Callable[[int], int]) -> int:
    """The longest window from ``low`` to ``high`` for which the bytes that are left suffice."""
    if high <= low:
        return low
    return low + bisect_right(range(low + 1, high + 1), left, key=more)


def _steps(
    windows: Sequence[int], worth: Sequence[float], base: int, rows: Rows, layer: int, head: int
) -> list[_Step]:
    """A head's steps beyond ``base``, each worth less per row than the one before."""
    points = [(base, 0.0)]  # window, worth so far
    total = 0.0
    for window, gain in zip(windows[1:], worth, strict=True):
        if window <= base:
            continue
        total += max(gain, 0.0)
        points.append((min(window, rows.most), total))
    gain, window = max(worth[-1], 0.0), windows[-1]
    while window < rows.most:  # what was not measured
        gain, window = gain * BEYOND, min(2 * window, rows.most)
        total += gain
        points.append((window, total))
    hull: list[_Point] = []
    for window, total in points:
        point = _Point(rows.taken(window) / rows.bytes, total, window)
        if hull and point.rows <= hull[-1].rows:
            continue
        while len(hull) > 1 and _slope(hull[-1], point) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return [
        _Step(_slope(before, after), layer, head, after.window)
        for before, after in zip(hull, hull[1:], strict=False)
        if after.worth > before.worth
    ]


def _slope(before: _Point, after: _Point) -> float:
    return (after.worth - before.worth) / (after.rows - before.rows)
