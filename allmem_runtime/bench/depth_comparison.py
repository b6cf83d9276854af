"""Is a session that has read much as fast as one that has read little? Measured in turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from allmem_runtime.bench.measure import Meter
from allmem_runtime.bench.statistics import Spread
from allmem_runtime.session.session import Session

ROUNDS = 9


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
    """Measure both sessions in turns, who begins changing every time.

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
