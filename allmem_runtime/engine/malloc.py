"""Memory that the process asked for and needs no more."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 20
_MOST_MAPPED = 32 << 20
"""The largest threshold that the GNU C library takes."""
_KEPT, _KEPT_BY_DEFAULT = 256 << 20, 128 << 10
"""Free bytes at the end of the heap above which they are given back."""


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
    _set(_M_MMAP_THRESHOLD, _LARGE)


@contextmanager
def heap_reused() -> Iterator[None]:
    """Have freed blocks of up to 32 MiB used again meanwhile; then as ``map_large_blocks`` has it.

    A block that is mapped anew costs a page fault for every 4 KiB, as much as computing something
    simple with it. This is for work that takes blocks of the same few sizes over and over.
    """
    _set(_M_MMAP_THRESHOLD, _MOST_MAPPED)
    _set(_M_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        map_large_blocks()
        _set(_M_TRIM_THRESHOLD, _KEPT_BY_DEFAULT)
        give_heap_back()


def _set(parameter: int, value: int) -> None:
    mallopt = _of_c("mallopt")
    if mallopt is not None:
        mallopt(parameter, value)


def _of_c(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the GNU C library; None where there is another library."""
    if sys.platform != "linux":
        return None
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return found
