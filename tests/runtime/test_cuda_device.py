"""The stand-in CUDA device itself: it counts, and refuses what CUDA would refuse."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from cuda_reports import run_child

HEAD = """
import ctypes, json
from cuda_stand_in import Counters, RUNTIME
cuda = ctypes.CDLL(RUNTIME)
counters = Counters()
stream, address, graph, made = (ctypes.c_void_p() for _ in range(4))
host = ctypes.create_string_buffer(b"twelve bytes", 12)
seen = {}
def call(name, *arguments): seen[name] = cuda[name](*arguments)
def read():
    back = ctypes.create_string_buffer(12)
    assert cuda.cudaMemcpy(back, address, 12, 2) == 0
    return back.raw
cuda.cudaStreamCreateWithFlags(ctypes.byref(stream), 1)
assert cuda.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(100)) == 0
"""
TAIL = "\nprint(json.dumps([seen, counters.all(), counters.problems()]))\n"


def run(script: str) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    done = run_child("-c", HEAD + script + TAIL)
    assert done.returncode == 0, done.stderr[-3000:]
    seen, counters, problems = json.loads(done.stdout)
    return seen, counters, problems


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("call('cudaMalloc', ctypes.byref(made), ctypes.c_size_t(8))", 900),
        ("call('cudaMemcpy', address, host, 12, 1)", 900),
        ("call('cudaStreamSynchronize', stream)", 900),
        ("call('cudaDeviceSynchronize')", 900),
    ],
    ids=["malloc", "synchronous copy", "stream synchronize", "device synchronize"],
)
def test_call_that_a_capture_forbids_ends_it(call: str, error: int) -> None:
    seen, counters, problems = run(
        f"cuda.cudaStreamBeginCapture(stream, 0)\n{call}\n"
        "call('cudaStreamEndCapture', stream, ctypes.byref(graph))"
    )
    ended = seen.pop("cudaStreamEndCapture")
    assert list(seen.values()) == [error]
    assert ended == 901
    assert (counters["forbidden"], counters["graphs"]) == (1, 0)
    assert "during a capture" in problems[0]


def test_captured_copy_happens_at_every_launch_of_the_graph_and_not_before() -> None:
    seen, counters, problems = run(
        "cuda.cudaStreamBeginCapture(stream, 0)\n"
        "cuda.cudaMemcpyAsync(address, host, 12, 1, stream)\n"
        "cuda.cudaStreamEndCapture(stream, ctypes.byref(graph))\n"
        "seen['captured'] = read().hex()\n"
        "cuda.cudaGraphInstantiate(ctypes.byref(made), graph, 0)\n"
        "for text in (b'first launch', b'second one..'):\n"
        "    host.raw = text\n"
        "    cuda.cudaGraphLaunch(made, stream)\n"
        "    seen[text.decode()] = read().decode()\n"
    )
    assert seen.pop("captured") == "3c" * 12  # as fresh memory is
    assert seen == {"first launch": "first launch", "second one..": "second one.."}
    assert (counters["captured_host_copies"], counters["graph_launches"]) == (1, 2)
    assert (counters["h2d_calls"], counters["h2d_bytes"]) == (2, 24)
    assert problems == []


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("call('cudaMemcpy', address, host, 12, 2)", "kind 2 from host to device"),
        ("call('cudaMemcpy', address, host, 101, 1)", "outside of what was allocated"),
        ("call('cudaMemset', address, 0, 101)", "outside of an allocation"),
        ("call('cudaFree', ctypes.c_void_p(address.value + 8))", "not allocated"),
    ],
    ids=["wrong kind", "too long a copy", "too long a memset", "wrong address"],
)
def test_invalid_call_is_refused(call: str, problem: str) -> None:
    seen, counters, problems = run(call)
    assert list(seen.values()) == [1]
    assert counters["invalid"] == 1
    assert problem in problems[0]


def test_memory_is_counted_and_ends() -> None:
    seen, counters, _ = run(
        "huge = ctypes.c_size_t(1 << 50)\ncall('cudaMalloc', ctypes.byref(made), huge)\n"
        "cuda.cudaMalloc(ctypes.byref(made), ctypes.c_size_t(1000))\ncuda.cudaFree(made)\n"
    )
    assert seen == {"cudaMalloc": 2}
    assert (counters["bytes_in_use"], counters["peak_bytes"]) == (100, 1100)


def test_host_that_touches_device_memory_is_stopped() -> None:
    done = run_child("-c", HEAD + "ctypes.string_at(address, 1)")
    assert done.returncode == -signal.SIGSEGV
