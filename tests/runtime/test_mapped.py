"""Arrays in one mapping: zeros of their own shape and type that share nothing."""

from __future__ import annotations

import gc
import mmap
import weakref

import numpy as np
import pytest

from allmem_runtime.engine import mapped

WANTED = [((1, 2, 5, 3), "float16"), ((7,), "int8"), ((2, 3), "float32")]


def test_arrays_are_blank_writable_and_apart() -> None:
    arrays = mapped.mapped_zeros(WANTED)
    assert [(a.shape, a.dtype.name) for a in arrays] == WANTED
    for number, array in enumerate(arrays, 1):
        assert not array.any() and array.flags.writeable and array.flags.c_contiguous
        array[...] = number
    assert [set(array.ravel().tolist()) for array in arrays] == [{1}, {2}, {3}]
    lines = [array.ctypes.data // 64 for array in arrays]
    assert all(array.ctypes.data % 64 == 0 for array in arrays) and len(set(lines)) == 3


def test_no_arrays_are_no_error() -> None:
    assert mapped.mapped_zeros([]) == []


def test_the_mapping_lives_as_long_as_one_of_its_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[mmap.mmap]] = []
    make = mapped._mapping

    def watched(nbytes: int) -> mmap.mmap:
        mapping = make(nbytes)
        made.append(weakref.ref(mapping))
        return mapping

    monkeypatch.setattr(mapped, "_mapping", watched)
    arrays = mapped.mapped_zeros(WANTED)
    last = arrays.pop()
    del arrays
    gc.collect()
    assert made[0]() is not None and not np.any(last)
    del last
    gc.collect()
    assert made[0]() is None


def test_too_much_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="cannot be mapped"):
        mapped.mapped_zeros([((1 << 60,), "int8")])
