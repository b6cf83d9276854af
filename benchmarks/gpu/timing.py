"""Times of several ways to do one thing, alternately, so that all meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """One way to do it.

    Attributes:
        name: of the way.
        make: prepares it; may raise, which is reported as the reason why it was not measured.
        calls: how often the made function does it.
    """

    name: str
    make: Callable[[], Call]
    calls: int = 1


@dataclass
class Race:
    """What came of it.

    Attributes:
        seconds: of one call, by name, a value a round.
        failures: why others were not measured.
        notes: what is to be known of a time.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Seconds of one call."""
        return statistics.median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> tuple[float, float, float]:
        """How many times as long one takes as another: median, and what 80 % lie between."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return spread([a / b for a, b in pairs])


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the bounds that 80 % of the values lie between."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)]


def reason(error: BaseException) -> str:
    """Kind and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


class Stopwatch:
    """Measures with CUDA events; on the CPU, where speed means nothing, with the clock.

    Args:
        device: where the work is done.
        seconds: about so long for each contender of a race.
        rounds: least and most.
    """

    def __init__(
        self, device: torch.device, seconds: float = 1.0, rounds: tuple[int, int] = (7, 50)
    ) -> None:
        self.device = device
        self._seconds = seconds
        self._rounds = rounds
        self._cuda = device.type == "cuda"
        self._flush: torch.Tensor | None = None

    def race(self, contenders: Sequence[Contender], *, capture: bool = True) -> Race:
        """Measure all that can be measured, alternately.

        Args:
            contenders: the ways.
            capture: replay each as a CUDA graph, so that Python's own time does not count.
        """
        race = Race()
        ready: dict[str, tuple[Call, int]] = {}
        for contender in contenders:
            try:
                call = contender.make()
                for _ in range(3 if self._cuda else 1):
                    call()
                self._wait()
                if capture and self._cuda:
                    call, note = self._captured(call)
                    if note:
                        race.notes[contender.name] = note
                ready[contender.name] = call, contender.calls
            except Exception as error:  # others' code fails in ways of its own: it is reported
                race.failures[contender.name] = reason(error)
        if not ready:
            return race
        names = list(ready)
        race.seconds = {name: [] for name in names}
        first = sum(self._once(*ready[name]) * ready[name][1] for name in names)
        least, most = self._rounds
        rounds = max(least, min(most, int(len(names) * self._seconds / max(first, 1e-6))))
        for turn in range(rounds):
            for i in range(len(names)):  # each is first, second, ... equally often
                name = names[(turn + i) % len(names)]
                race.seconds[name].append(self._once(*ready[name]))
        return race

    def _once(self, call: Call, calls: int) -> float:
        """Seconds of one call, with nothing of it in the cache."""
        if not self._cuda:
            begin = time.perf_counter()
            call()
            return (time.perf_counter() - begin) / calls
        if self._flush is None:
            # Four times the largest cache there is; writing it also lets Python run ahead.
            self._flush = torch.empty(512 << 20, dtype=torch.uint8, device=self.device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(self.device)
        return float(start.elapsed_time(end)) / 1e3 / calls

    def _captured(self, call: Call) -> tuple[Call, str]:
        """The call as a graph, or as it was with a note."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call()
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)
            return call, f"not captured ({reason(error)}): Python's own time counts"
        graph.replay()
        self._wait()
        return graph.replay, ""

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self.device)
