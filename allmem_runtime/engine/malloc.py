"""Memory that the process asked for and needs no more."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20


def give_heap_back() -> None:
    """Give free memory of the C heap back to the system, where the C library can.

    Opening a model takes and frees tens of mebibytes in small parts, which the GNU C library
    would keep.
    """
    trim = _of_c("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def map_large_blocks() -> None:
    """Have blocks of a mebibyte and more mapped one by one, and so given back one by one.

    The GNU C library puts blocks of up to 32 MiB side by side once some were freed. Where tensors
    of many sizes come and go between such that stay, as in training, the holes are lost: half of
    what the process holds.
    """
    mallopt = _of_c("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _of_c(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the GNU C library; None where there is another library."""
    if sys.platform != "linux":
        return None
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return found
