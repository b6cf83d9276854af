"""How many CPU threads a step takes unless it is told: the cores that this process really has."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from allmem_runtime.errors import UsageError
from allmem_runtime.machine import cores

VARIABLE = "ALLMEM_THREADS"
"""Environment variable with a number of threads, for all models of a process."""

BLAS_VARIABLE = "OPENBLAS_NUM_THREADS"

MOST = 1024
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def cpu_threads(wanted: int | None) -> int:
    """Threads of a step.

    Args:
        wanted: what the caller said; None takes ``ALLMEM_THREADS``, or without it the physical
            cores that this process may use, within the CPU quota of its container. A second
            thread on a core gains nothing where both wait for the same multipliers and caches,
            and threads beyond a quota only make the others wait until the next period.

    Raises:
        UsageError: it is none from 1 to 1024.
    """
    if wanted is not None:
        if isinstance(wanted, bool) or not 1 <= wanted <= MOST:
            raise UsageError(f"threads is {wanted!r}.", f"It must be 1 to {MOST}.")
        return wanted
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MOST):
            raise UsageError(f"{VARIABLE} is {given[:40]!r}.", f"It must be 1 to {MOST}.")
        return int(given)
    quota = cpu_quota()
    return max(1, min(cores(), MOST if quota is None else math.floor(quota)))


def no_blas_threads() -> None:
    """Keep NumPy's own linear algebra from starting threads, for programs that do not use it.

    That takes a third of the time of importing NumPy. It must be said before; what the user said
    counts more.
    """
    os.environ.setdefault(BLAS_VARIABLE, "1")


def cpu_quota(own: Path = _OWN_CGROUP, groups: Path = _CGROUPS) -> float | None:
    """CPUs that the control groups of this process may keep busy; None if there is no limit.

    Args:
        own: which groups the process is in.
        groups: where the groups are.
    """
    try:
        lines = own.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    limits: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            limits += _along(groups, path, _version2)
        elif "cpu" in controllers.split(","):
            for mount in (groups / controllers, groups / "cpu"):
                limits += _along(mount, path, _version1)
    return min(limits, default=None)


def _along(root: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """The limits of a group and of all groups around it."""
    place = root / path.lstrip("/")
    # Inside a container the path may be that of the host, and only the root is there.
    for folder in (place, *place.parents):
        limit = read(folder)
        if limit is not None:
            yield limit
        if folder == root:
            return


def _version2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _version1(folder: Path) -> float | None:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    return _ratio(quota[0], period[0]) if quota and period else None


def _ratio(quota: str, period: str) -> float | None:
    """CPUs; None for ``max`` and -1, which are no limits."""
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return int(quota) / int(period)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
