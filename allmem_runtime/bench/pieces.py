"""Which length of a piece this machine reads fastest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from allmem_runtime.bench.reading import Stopped
from allmem_runtime.bench.statistics import Spread
from allmem_runtime.bench.texts import Text
from allmem_runtime.model import Model

LENGTHS = (64, 128, 256, 512, 1024)
ROUNDS = 3
GAIN = 1.03
"""Another length than the usual one must read this much faster, and be faster in every round: less
may be noise."""
MAX_TOKENS = 4096
"""Tokens read first, at most: the window should be full, as it is in any long text."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        piece: the best length.
        usual: the length without a measurement.
        speeds: tokens read in a second, by length.
        gains: the same over that of the usual length, round by round.
    """

    piece: int
    usual: int
    speeds: dict[int, Spread]
    gains: dict[int, Spread]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "piece": self.piece,
            "usual": self.usual,
            "tokens_per_second": {str(n): s.as_json() for n, s in self.speeds.items()},
            "gain": {str(n): s.as_json() for n, s in self.gains.items()},
        }


def candidates(chunk: int, usual: int, longest: int) -> list[int]:
    """Lengths worth trying: the usual one, and others that divide a chunk into equal parts."""
    return sorted({usual, *(n for n in (*LENGTHS, chunk) if n <= longest and chunk % n == 0)})


def find_piece(
    model: Model,
    usual: int,
    text: Text,
    stopped: Callable[[], bool],
    rounds: int = ROUNDS,
) -> Found:
    """Read the same text in pieces of several lengths, in turns.

    Args:
        model: reads.
        usual: the length to compare with.
        text: is read.
        stopped: whether to stop.
        rounds: how often each length has its turn.

    Raises:
        Stopped: Ctrl-C came.
    """
    chunk = model.manifest.chunk
    lengths = candidates(chunk, usual, model.longest_piece)
    session = model.session(undo=False)
    first = min(model.manifest.window + model.manifest.sinks, MAX_TOKENS)
    first = -(-first // chunk) * chunk
    session.feed(text.part(0, first))
    session.checkpoint()
    ids = text.part(first, first + chunk)
    times: dict[int, list[float]] = {length: [] for length in lengths}
    for turn in range(rounds + 1):
        for length in lengths:
            session.piece = length
            began = time.perf_counter()
            session.feed(ids)
            seconds = time.perf_counter() - began
            if stopped():
                raise Stopped
            session.rollback()
            if turn:  # in the first round buffers are made
                times[length].append(seconds)
    gains = {
        length: Spread.of([a / b for a, b in zip(times[usual], found, strict=True)])
        for length, found in times.items()
    }
    return Found(
        best(gains, usual),
        usual,
        {n: Spread.of(found).map(lambda seconds: chunk / seconds) for n, found in times.items()},
        gains,
    )


def best(gains: dict[int, Spread], usual: int) -> int:
    """The fastest length, if it is clearly faster than the usual one."""
    clear = [n for n, gain in gains.items() if gain.median >= GAIN and gain.lowest > 1.0]
    return max(clear, key=lambda length: gains[length].median, default=usual)
