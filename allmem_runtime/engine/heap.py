"""Memory that the process asked for and needs no more."""

from __future__ import annotations

import ctypes
import sys


def give_heap_back() -> None:
    """Give free memory of the C heap back to the system, where the C library can.

    Opening a model takes and frees tens of mebibytes in small parts, which the GNU C library
    would keep.
    """
    if sys.platform != "linux":
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return
    trim(ctypes.c_size_t(0))
