"""Memory of a process, as the operating system counts it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_PRIVATE = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Bytes of one process.

    Attributes:
        resident: in main memory now, or the most so far where only that is known.
        private: of these, what no other process could share; None where it is not known.
        anonymous: of these, what no file backs, so that it can only be swapped out; None where it
            is not known.
    """

    resident: int
    private: int | None = None
    anonymous: int | None = None


def process_memory(process: int | str = "self") -> ProcessMemory:
    """Memory of a process of this user.

    Args:
        process: its id; another one than this can be asked for on Linux alone.

    Raises:
        OSError: there is no such process, or this system does not tell.
    """
    status = Path(f"/proc/{process}/status")
    if not status.is_file():
        if process != "self":
            raise OSError(f"Nothing is known of process {process}.")
        import resource  # Windows has none

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return ProcessMemory(peak if sys.platform == "darwin" else peak << 10)
    lines = _fields(status)
    try:
        pages = _fields(status.with_name("smaps_rollup"))
    except OSError:
        return ProcessMemory(lines["VmRSS:"])
    return ProcessMemory(
        pages["Rss:"], sum(pages.get(name, 0) for name in _PRIVATE), pages.get("Anonymous:")
    )


def _fields(path: Path) -> dict[str, int]:
    """Bytes by name, of lines such as ``Rss:  12 kB``."""
    found = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            found[words[0]] = int(words[1]) << 10
    return found
