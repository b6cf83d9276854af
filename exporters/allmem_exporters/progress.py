"""Says how far a long phase is, and how much time it has left."""

from __future__ import annotations

import time
from collections.abc import Callable

from allmem_runtime.quantities import format_duration

_SECONDS = 10.0
"""Between two lines."""


class Progress:
    """One phase of a command.

    Args:
        phase: what it does.
        report: is told a line now and then.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        phase: str,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._phase, self._report, self._clock = phase, report, clock
        self._began = self._told = clock()

    def __call__(self, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` units are done."""
        now = self._clock()
        if now - self._told < _SECONDS or not 0 < done < total:
            return
        self._told = now
        left = (now - self._began) * (total - done) / done
        self._report(f"{self._phase}: {100 * done // total} %, {format_duration(left)} left")
