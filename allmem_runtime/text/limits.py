"""How much time and memory the trial of a tokenizer and a chat template may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

TEMPLATE_SECONDS = 3
_MEBIBYTE = 1 << 20
BASE_MEMORY = 1 << 30
_MEMORY_FOR_EACH_BYTE = 40
BASE_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may take.

    Attributes:
        cpu_seconds: of processor time for the tokenizer.
        template_seconds: of processor time for the template.
        wall_seconds: altogether, also while it waits for the processor.
        memory: bytes of address space.
    """

    cpu_seconds: int
    template_seconds: int
    wall_seconds: int
    memory: int

    @classmethod
    def of(cls, size: int) -> Limits:
        """The limits for a tokenizer of so many bytes."""
        cpu = BASE_SECONDS + math.ceil(size / _MEBIBYTE)
        # Where a system limits no processor time, this is what ends an endless one.
        wall = 10 * (cpu + TEMPLATE_SECONDS)
        memory = BASE_MEMORY + _MEMORY_FOR_EACH_BYTE * size
        return cls(cpu, TEMPLATE_SECONDS, wall, memory)

    def apply(self) -> None:
        """Put this process under the limits, for good, as far as the system knows them."""
        try:
            import resource
        except ImportError:  # Windows
            return
        wanted = {
            "RLIMIT_AS": self.memory,
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_CORE": 0,
            "RLIMIT_FSIZE": 0,
        }
        for name, value in wanted.items():
            _lower(resource, name, value)


def allow(seconds: int) -> None:
    """Let this process run for so many seconds of processor time more, and no longer."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(used.ru_utime + used.ru_stime)
    _lower(resource, "RLIMIT_CPU", spent + seconds)


def _lower(resource, name: str, value: int) -> None:  # type: ignore[no-untyped-def]
    """Set a soft limit within the hard one; not every system knows every limit."""
    number = getattr(resource, name, None)
    if number is None:
        return
    _, hard = resource.getrlimit(number)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    try:
        resource.setrlimit(number, (value, hard))
    except (OSError, ValueError):
        return
