"""What is measured at one depth (prompts, writing, memory), and of two depths alternately."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from allmem_runtime.bench.process_memory import process_memory
from allmem_runtime.bench.reading import Reached, Stopped
from allmem_runtime.bench.statistics import Spread
from allmem_runtime.bench.texts import Text
from allmem_runtime.errors import SessionStateError
from allmem_runtime.session.session import Session

ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Work:
    """How much is done for one figure.

    Attributes:
        prompts: tokens of each prompt.
        written: tokens written for one figure.
        repeats: figures of each kind.
    """

    prompts: Sequence[int] = (32, 512)
    written: int = 32
    repeats: int = 5


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured at one depth.

    Attributes:
        depth: tokens read before.
        reached: how.
        first_token: seconds from a prompt to the first token of the answer, by its size.
        decode: tokens written in a second.
        resident: bytes of the process in main memory.
        private: of these, its own alone; None where it is not known.
        state: bytes of the session's state.
    """

    depth: int
    reached: Reached
    first_token: dict[int, Spread]
    decode: Spread
    resident: int
    private: int | None
    state: int

    def prefill(self, size: int) -> Spread:
        """Tokens of a prompt read in a second."""
        return self.first_token[size].map(lambda seconds: size / seconds)

    def as_json(self) -> dict[str, Any]:
        """Plain values; times in seconds, sizes in bytes."""
        reached = self.reached
        speed = reached.tokens / reached.seconds if reached.seconds and reached.tokens else None
        return {
            "tokens_read": self.depth,
            "reading": {
                "tokens": reached.tokens,
                "seconds": reached.seconds,
                "tokens_per_second": speed,
                "kept": reached.kept,
            },
            "prompts": [
                {
                    "tokens": size,
                    "first_token_seconds": seconds.as_json(),
                    "tokens_per_second": self.prefill(size).as_json(),
                }
                for size, seconds in self.first_token.items()
            ],
            "decode_tokens_per_second": self.decode.as_json(),
            "resident_bytes": self.resident,
            "private_bytes": self.private,
            "state_bytes": self.state,
        }


class Meter:
    """Measures on sessions and leaves them as they were.

    Args:
        text: prompts are taken from it, from where the session stands.
        work: how much of it.
        stopped: whether to stop.
    """

    def __init__(self, text: Text, work: Work, stopped: Callable[[], bool]) -> None:
        self._text = text
        self._work = work
        self._stopped = stopped

    def row(self, session: Session, reached: Reached) -> Row:
        """All figures at a session's depth; kinds take turns, so that all meet the same machine.

        Raises:
            Stopped: Ctrl-C came.
        """
        times: dict[int, list[float]] = {size: [] for size in self._work.prompts}
        speeds: list[float] = []
        session.checkpoint()
        self.decode(session)  # buffers of this length are made now, not while the clock runs
        for _ in range(self._work.repeats):
            for size in self._work.prompts:
                times[size].append(self.first_token(session, size))
            speeds.append(self.decode(session))
        memory = process_memory()
        return Row(
            session.position,
            reached,
            {size: Spread.of(values) for size, values in times.items()},
            Spread.of(speeds),
            memory.resident,
            memory.private,
            session.model.state_bytes,
        )

    def first_token(self, session: Session, size: int) -> float:
        """Seconds to read a prompt and find the first token of the answer."""
        ids = self._text.part(session.position, session.position + size)
        began = time.perf_counter()
        self._likeliest(session, ids)
        seconds = time.perf_counter() - began
        session.rollback()
        return seconds

    def decode(self, session: Session) -> float:
        """Tokens written in a second, each the likeliest."""
        token = self._likeliest(session, self._text.part(session.position, session.position + 1))
        began = time.perf_counter()
        for _ in range(self._work.written):
            token = self._likeliest(session, [token])
        seconds = time.perf_counter() - began
        session.rollback()
        return self._work.written / seconds

    def _likeliest(self, session: Session, ids: list[int]) -> int:
        try:
            logits = session.feed(ids, logits="last")
        except SessionStateError:
            if self._stopped():
                raise Stopped from None
            raise
        if self._stopped():
            raise Stopped
        assert logits is not None
        return int(logits.argmax())


@dataclass(frozen=True, slots=True)
class Ratios:
    """One depth over another, as ratios of neighboring measurements.

    Attributes:
        near: tokens read by the one.
        far: tokens read by the other.
        decode: speed of writing, far over near.
        first_token: time to the first token, far over near, of the largest prompt.
    """

    near: int
    far: int
    decode: Spread
    first_token: Spread

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "near": self.near,
            "far": self.far,
            "decode_speed": self.decode.as_json(),
            "first_token_time": self.first_token.as_json(),
        }


def compare(meter: Meter, near: Session, far: Session, prompt: int, rounds: int = ROUNDS) -> Ratios:
    """Measure both sessions alternately, who begins changing every time.

    Raises:
        Stopped: Ctrl-C came.
    """
    decode: list[float] = []
    first: list[float] = []
    for session in (near, far):
        session.checkpoint()
        meter.decode(session)
    for turn in range(rounds):
        order = (near, far) if turn % 2 else (far, near)
        speeds = {id(session): meter.decode(session) for session in order}
        decode.append(speeds[id(far)] / speeds[id(near)])
        times = {id(session): meter.first_token(session, prompt) for session in order}
        first.append(times[id(far)] / times[id(near)])
    return Ratios(near.position, far.position, Spread.of(decode), Spread.of(first))
