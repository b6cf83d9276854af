"""How much memory programs can still take, as the system tells it."""

from __future__ import annotations

from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that programs can still take; None where the system does not say.

    In a container it is what is left of the container's own limit, if that is less.
    """
    found = [free for free in (_machine(), _group()) if free is not None]
    return min(found, default=None)


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):
        return None


def _group() -> int | None:
    try:
        limit = int(
            (_GROUP / "memory.max").read_text(encoding="ascii")
        )  # "max" where there is none
        used = int((_GROUP / "memory.current").read_text(encoding="ascii"))
        facts = (_GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        kept = dict(line.split(" ", 1) for line in facts)
        # Pages of files are given up when somebody needs the memory.
        return max(0, limit - used + int(kept["inactive_file"]))
    except (OSError, ValueError, KeyError):
        return None
