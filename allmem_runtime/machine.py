"""Which CPU this is, for what was measured on one and would be wrong on another; and its memory."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_FACTS = ("vendor_id", "model name", "cpu family", "model", "stepping", "flags", "Features")


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU as the operating system tells it.

    Attributes:
        name: of the CPU, for people.
        architecture: such as ``x86_64``.
        cores: physical cores this process may use.
        digest: equal for equal CPUs with the same instructions.
    """

    name: str
    architecture: str
    cores: int
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@functools.cache
def machine() -> Machine:
    """This machine."""
    facts = cpu_facts(Path("/proc/cpuinfo"))
    architecture = platform.machine()
    name = facts.get("model name") or platform.processor() or architecture
    text = "\n".join([architecture, name, *(f"{key}: {facts.get(key)}" for key in _FACTS)])
    return Machine(name, architecture, cores(), hashlib.sha256(text.encode()).hexdigest())


def cpu_facts(path: Path) -> dict[str, str]:
    """What Linux says of the first CPU; empty on other systems."""
    found: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    return found


def cores(folder: Path = Path("/sys/devices/system/cpu")) -> int:
    """Physical cores this process may use; logical ones where nothing tells them apart."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    found = set()
    for cpu in allowed:
        try:
            found.add((folder / f"cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            return len(allowed)
    return len(found)


def available_memory(path: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that can be taken without swapping; None on systems that do not tell as Linux does."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def free_disk(path: Path) -> int:
    """Bytes that are free where a file or folder is to be made, which need not be there yet."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free
