"""What a step moves over the bus, allocates and writes, counted by a stand-in CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cuda_reports import report, run_child

INDEX = 8  # bytes of an id, a position, the number of a row
WINDOW, SINKS = 24, 4  # of the tiny models
Report = dict[str, Any]


@pytest.fixture(
    scope="module",
    params=[("float32", True), ("float32", False), ("float16", True)],
    ids=["float32 with CUDA graphs", "float32 without", "float16 with CUDA graphs"],
)
def seen(request: pytest.FixtureRequest) -> Report:
    """The report of a model."""
    activations, graphs = request.param
    name = "tiny_model_dir" if activations == "float32" else "tiny_float16_model_dir"
    return report(request.getfixturevalue(name), "native", graphs)


def test_step_moves_ids_position_and_rows_there_and_logits_back(seen: Report) -> None:
    for step in seen["steps"]:
        cost, rows = step["cost"], step["rows"]
        most = INDEX * (step["tokens"] + 1 + rows)
        assert INDEX * (step["tokens"] + 1) <= cost["h2d_bytes"] <= most, step
        assert cost["d2h_bytes"] == rows * seen["vocab"] * 4, step
        assert cost["d2h_calls"] <= 1, step


def test_decoded_token_of_a_session_moves_three_numbers_and_one_row(seen: Report) -> None:
    for session in seen["sessions"]:
        assert session["token_h2d"] <= 3 * INDEX
        assert session["token_d2h"] == seen["vocab"] * 4


def test_device_memory_does_not_grow_with_steps(seen: Report) -> None:
    """Pieces of many lengths, and single tokens."""
    assert all(step["cost"]["allocations"] == 0 for step in seen["steps"])
    assert seen["memory_after_steps"] == seen["memory_before_steps"]


def test_device_memory_does_not_grow_with_sessions_that_come_and_go(seen: Report) -> None:
    memory = [session["memory"] for session in seen["sessions"]]
    assert memory[1:] == [memory[0]] * 3


def test_keys_go_to_the_slots_of_their_positions(seen: Report) -> None:
    """The position crosses the bus anew for every step, captured or not."""

    def slot(place: int) -> int:
        return place if place < SINKS else SINKS + (place - SINKS) % WINDOW

    for step in seen["steps"]:
        first = step["position"]
        assert step["written"] == sorted({slot(first + i) for i in range(step["tokens"])}), step


def test_float32_products_are_not_rounded_to_tf32(seen: Report) -> None:
    assert seen["loading"]["launches"] > 0
    assert seen["tf32_products"] == 0


def test_nothing_is_done_that_cuda_would_refuse(seen: Report) -> None:
    assert seen["problems"] == []


def test_model_that_does_not_fit_is_refused_in_words(tiny_model_dir: Path) -> None:
    script = (
        "import allmem_runtime, sys\n"
        "try: allmem_runtime.load(sys.argv[1], device='cuda')\n"
        "except allmem_runtime.DeviceError as error: print(error)\n"
    )
    done = run_child("-c", script, tiny_model_dir, ALLMEM_DEVICE_MEMORY=1 << 20)
    assert "the memory of cuda:0 is exhausted" in done.stdout, done.stdout + done.stderr
