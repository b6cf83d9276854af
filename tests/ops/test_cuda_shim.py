"""The CUDA-on-CPU shim: it runs what CUDA runs, and reports what CUDA leaves undefined."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from cuda_shim import ORDERS, SANITIZERS, ShimError, ShimLibrary, build, sanitizer_environment

SOURCES = ("shim/self_test.cu",)


@pytest.fixture(scope="module", params=["switched_by_hand", "ucontext"])
def shim(request: pytest.FixtureRequest) -> ShimLibrary:
    portable = ("-DALLMEM_SHIM_UCONTEXT",) if request.param == "ucontext" else ()
    return ShimLibrary(build(f"self_test_{request.param}", SOURCES, "-O1", *portable))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("order", [0, *ORDERS])
@pytest.mark.parametrize("width", [1, 31, 96, 97, 500])
def test_softmax_by_shuffles_and_barriers_is_exact(
    shim: ShimLibrary, width: int, order: int
) -> None:
    rows = np.random.default_rng(width).standard_normal((3, width)).astype(np.float32)
    got = np.full_like(rows, np.nan)
    shim.set_order(order)
    shim.call("test_softmax", pointer(rows), pointer(got), *rows.shape)
    shim.set_order(0)
    want = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
    want /= want.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=2e-6)  # float32 sums of a few hundred terms


@pytest.mark.parametrize(
    ("which", "says"),
    [
        (0, "has ended"),
        (1, "waits at a barrier"),
        (2, "has ended"),
        (3, "waits in a warp operation"),
        (4, "a grid of (0, 1, 1) blocks"),
        (5, "a block of (1025, 1, 1) threads"),
        (6, "bytes of dynamic shared memory"),
    ],
    ids=[
        "barrier_some_threads_skip",
        "two_different_barriers",
        "shuffle_some_lanes_skip",
        "barrier_against_shuffle",
        "empty_grid",
        "block_too_large",
        "too_much_shared_memory",
    ],
)
def test_misuse_is_reported_and_the_next_launch_works(
    shim: ShimLibrary, which: int, says: str
) -> None:
    out = np.zeros(8, np.float32)
    with pytest.raises(ShimError) as raised:
        shim.call("test_misuse", which, pointer(out), 0)
    assert says in str(raised.value)
    if which < 4:
        assert "self_test.cu:" in str(raised.value)
    rows, got = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    shim.call("test_softmax", pointer(rows), pointer(got), *rows.shape)
    np.testing.assert_array_equal(got, 0.25)


def test_a_missing_barrier_shows_as_a_result_that_depends_on_the_order(shim: ShimLibrary) -> None:
    results = []
    for order in (0, 1):
        out = np.zeros(96, np.float32)
        shim.set_order(order)
        shim.call("test_race", pointer(out))
        shim.set_order(0)
        results.append(out)
    assert not np.array_equal(*results)


@pytest.mark.parametrize(
    ("order", "seen"), [(0, [2, 2, 2]), (1, [2, 2, 2]), (-1, [0, 1, 2]), (-2, [2, 1, 0])], ids=str
)
def test_one_warp_can_run_ahead_of_the_others_past_warp_operations(
    shim: ShimLibrary, order: int, seen: list[int]
) -> None:
    out = np.zeros(3, np.float32)  # how many others have begun when a warp has come far
    shim.set_order(order)
    shim.call("test_run_ahead", pointer(out))
    shim.set_order(0)
    assert out.tolist() == seen


def test_dynamic_shared_memory_nobody_wrote_is_nan(shim: ShimLibrary) -> None:
    out = np.zeros(8, np.float32)
    shim.call("test_misuse", 8, pointer(out), 7)
    assert out[0] == 1.0
    shim.call("test_misuse", 9, pointer(out), 9)
    assert np.isnan(out[0])


def test_float16_is_converted_as_numpy_does(shim: ShimLibrary) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    exact = bits.view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        between = (exact[:-1] + exact[1:]) / 2  # ties
    noise = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    scales = np.float32(10.0) ** np.arange(-9, 9, dtype=np.float32)
    values = np.concatenate([exact, between, (noise[:, None] * scales).ravel()])
    got = np.empty_like(values)
    shim.call("test_round_trip", 1, pointer(values), pointer(got), values.size)
    with np.errstate(over="ignore", invalid="ignore"):
        want = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want) & ~np.isnan(want))


def test_bfloat16_is_rounded_to_nearest_even(shim: ShimLibrary) -> None:
    bits = np.arange(65536, dtype=np.uint32) << 16
    exact = bits.view(np.float32)
    finite = exact[np.isfinite(exact)]
    noise = np.random.default_rng(0).standard_normal(20000).astype(np.float32)
    scales = np.float32(10.0) ** np.arange(-30, 30, 4, dtype=np.float32)
    values = np.concatenate([exact, (noise[:, None] * scales).ravel()])
    got = np.empty_like(values)
    shim.call("test_round_trip", 2, pointer(values), pointer(got), values.size)
    np.testing.assert_array_equal(got[: exact.size], exact)
    ordered = np.sort(finite.astype(np.float64))
    many = values[exact.size :].astype(np.float64)
    right = np.clip(np.searchsorted(ordered, many), 1, ordered.size - 1)
    nearest = np.minimum(many - ordered[right - 1], ordered[right] - many)
    np.testing.assert_array_equal(np.abs(got[exact.size :] - many), np.abs(nearest))


@pytest.mark.parametrize(
    ("which", "says"),
    [(7, "index 8 out of bounds"), (8, "heap-buffer-overflow")],
    ids=["static", "dynamic"],
)
def test_reads_past_shared_memory_are_seen_by_the_sanitizers(which: int, says: str) -> None:
    library = build("self_test_asan", SOURCES, "-O1", *SANITIZERS)
    program = (
        "import ctypes, sys\n"
        f"shim = ctypes.CDLL({str(library)!r})\n"
        "out = (ctypes.c_float * 96)()\n"
        "shim.test_softmax((ctypes.c_float * 96)(), out, 1, 96)\n"
        f"shim.test_misuse({which}, out, int(sys.argv[1]))\n"
        "shim.allmem_shim_take_error.restype = ctypes.c_char_p\n"
        "print(shim.allmem_shim_take_error(), out[0])\n"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", program, str(index)],
            capture_output=True,
            text=True,
            env=sanitizer_environment(),
        )
        for index in (7, 8)
    ]
    assert done[0].returncode == 0, done[0].stderr[-4000:]
    assert done[0].stdout.strip() == "None 1.0"
    assert done[1].returncode != 0
    assert says in done[1].stderr
