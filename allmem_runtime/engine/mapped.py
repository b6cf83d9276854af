"""Host arrays in memory that was mapped for them, and that goes back to the system with them."""

from __future__ import annotations

import contextlib
import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINE = 64
"""Bytes of a cache line: no two arrays share one."""

_HUGE = 4 << 20
"""Bytes from which on NumPy asks the system for huge pages."""


def mapped_zeros(wanted: Sequence[tuple[Sequence[int], str]]) -> list[NDArray[Any]]:
    """Arrays of zeros, side by side in one mapping that ends with the last of them.

    A C library keeps freed blocks of up to 32 MiB for itself, and those between others that stay
    for good: twenty forks that were let go would go on taking the memory of twenty states.

    Args:
        wanted: shape and element type of each.

    Raises:
        MemoryError: there is not enough.
    """
    types = [np.dtype(element) for _, element in wanted]
    counts = [int(np.prod(shape, dtype=np.int64)) for shape, _ in wanted]
    sizes = [count * kind.itemsize for count, kind in zip(counts, types, strict=True)]
    starts = np.cumsum([0, *(-(-size // _LINE) * _LINE for size in sizes)]).tolist()
    mapping = _mapping(max(starts[-1], 1))
    if max(sizes, default=0) >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return [
        np.frombuffer(mapping, kind, count, start).reshape(shape)
        for kind, count, start, (shape, _) in zip(types, counts, starts, wanted, strict=False)
    ]


def _mapping(nbytes: int) -> mmap.mmap:
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, nbytes)
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes cannot be mapped: {error.strerror or error}") from None
