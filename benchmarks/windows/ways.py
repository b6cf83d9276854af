"""The ways to give rows that are compared: at equal bytes by the head table, and one window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from allmem_exporters.heads.allocation import Rows, allocate
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.model.config import AllMemConfig
from allmem_runtime.errors import UsageError
from benchmarks.windows.elements import Element, Float16, Int4, Int8
from benchmarks.windows.rings import SCORE_BYTES, Ring

SCORES = ("surprise", "learned")
ROWS = ("float16", "int8", "int4", "int8+int4", "float16+int4")
"""The type of all heads, or that of heads with the shortest window and that of longer ones."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How rows that leave the window are kept.

    Attributes:
        score: ``surprise`` or ``learned``.
        share: of a head's rows beyond the shortest window that are slots for chosen ones.
    """

    score: str
    share: float

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 < self.share <= 1:
            raise UsageError(
                f"A share of {self.share:g} is none.", "Give --share above 0, up to 1."
            )


@dataclass(frozen=True, slots=True)
class Way:
    """The rings of each layer's heads, and how their rows are chosen if any are."""

    rings: list[list[Ring]]
    choice: Choice | None = None

    def bytes(self, sinks: int, head_dim: int) -> int:
        """Of all rings together."""
        return sum(ring.bytes(sinks, head_dim) for layer in self.rings for ring in layer)

    def latest(self) -> Way:
        """As many rows, but the latest."""
        rings = [
            [dataclasses.replace(ring, latest=ring.rows, slots=0) for ring in layer]
            for layer in self.rings
        ]
        return Way(rings)


@dataclass(frozen=True, slots=True)
class Giver:
    """Gives rows by a head table.

    Attributes:
        table: what reach is worth.
        config: of the model.
        int4: how four bits are grouped.
        longest: tokens that a head may have at most; None for what the model was trained for.
    """

    table: HeadTable
    config: AllMemConfig
    int4: Int4
    longest: int | None = None

    def uniform(self, window: int, rows: str = "float16") -> Way:
        """One window for all heads."""
        config, element = self.config, self._elements(rows)[1]
        ring = Ring(element, window)
        return Way([[ring] * config.num_key_value_heads] * config.num_hidden_layers)

    def by_head(self, budget: int, rows: str = "float16", choice: Choice | None = None) -> Way:
        """Windows by the table that take ``budget`` bytes at most."""
        short, long = self._elements(rows)
        shortest, sinks = self.table.windows[0], self.table.sinks
        most = self.config.max_position_embeddings - sinks
        costs = _Costs(
            bytes=1, sinks=sinks, most=min(most, self.longest or most),
            short=short, long=long, shortest=shortest, head_dim=self.config.head_dim,
            scores=SCORE_BYTES if choice else 0,
        )  # fmt: skip
        share = choice.share if choice else 0.0

        def ring(window: int) -> Ring:
            slots = int(share * (window - shortest))
            return Ring(short if window == shortest else long, window - slots, slots)

        windows = allocate(self.table, budget, costs, 1)
        return Way([[ring(window) for window in layer] for layer in windows], choice)

    def _elements(self, rows: str) -> tuple[Element, Element]:
        """Of heads with the shortest window, and of the others."""
        known: dict[str, Element] = {"float16": Float16(), "int8": Int8(), "int4": self.int4}
        short, _, long = rows.partition("+")
        return known[short], known[long or short]


@dataclass(frozen=True, slots=True)
class _Costs(Rows):
    """What a head's ring takes with each window."""

    short: Element = dataclasses.field(kw_only=True)
    long: Element = dataclasses.field(kw_only=True)
    shortest: int = dataclasses.field(kw_only=True)
    head_dim: int = dataclasses.field(kw_only=True)
    scores: int = dataclasses.field(kw_only=True)

    def taken(self, window: int) -> int:
        """See ``Rows``."""
        if window == self.shortest:
            return self.short.bytes(window, self.sinks, self.head_dim)
        return self.long.bytes(window, self.sinks, self.head_dim) + self.scores * window


def ways_of(
    givers: dict[str, Giver],
    windows: Sequence[int],
    rows: Sequence[str] = (),
    choices: Sequence[Choice] = (),
) -> dict[str, Way]:
    """By name: for each window float16 rows for all alike, and others in as many bytes by head.

    Args:
        givers: by name of the table; the first gives rows of other types and chosen ones.
        windows: whose bytes are given.
        rows: of ``ROWS``, besides float16.
        choices: each for float16 and for int8 where it is among ``rows``.
    """
    first = next(iter(givers.values()))
    shortest, sinks = first.table.windows[0], first.table.sinks
    ways = {f"{shortest} everywhere": first.uniform(shortest)}
    for window in windows:
        alike = first.uniform(window)
        budget = alike.bytes(sinks, first.config.head_dim)
        ways[f"{window} everywhere"] = alike
        for kind in rows:
            if "+" not in kind:
                ways[f"{window} everywhere, {kind}, fewer bytes"] = first.uniform(window, kind)
        for name, giver in givers.items():
            by = f" by {name}" if len(givers) > 1 else ""
            ways[f"{window} by head{by}"] = giver.by_head(budget)
        for kind in rows:
            ways[f"{window} by head, {kind}"] = first.by_head(budget, kind)
        for kind in ("float16", *(kind for kind in rows if kind == "int8")):
            for choice in choices:
                name = f"{window} by head, {kind}, {choice.score} {choice.share:g}"
                ways[name] = first.by_head(budget, kind, choice)
    return ways
