"""Decoding captured as a CUDA graph, on a stand-in device that models capture and its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cuda_reports import report

Report = dict[str, Any]


@pytest.fixture(scope="module", params=["float32", "float16"])
def seen(request: pytest.FixtureRequest) -> Report:
    """The report of a model with CUDA graphs."""
    name = "tiny_model_dir" if request.param == "float32" else "tiny_float16_model_dir"
    return report(request.getfixturevalue(name))


def decoded(seen: Report) -> list[dict[str, int]]:
    """Costs of the steps of one token with logits."""
    return [step["cost"] for step in seen["steps"] if step["tokens"] == step["rows"] == 1]


def test_step_of_one_token_is_captured_once_when_the_model_loads(seen: Report) -> None:
    loading = seen["loading"]
    assert (loading["captures"], loading["graphs"]) == (1, 1)
    assert loading["captured_launches"] > 0
    assert sum(step["cost"]["captures"] for step in seen["steps"]) == 0


def test_nothing_forbidden_happens_during_capture(seen: Report) -> None:
    assert seen["loading"]["forbidden"] == 0
    # Work on another stream would happen once and be missing in every replay.
    assert seen["loading"]["outside_capture"] == 0


def test_graph_holds_no_copy_from_or_to_host_memory(seen: Report) -> None:
    """Host addresses would be frozen in it."""
    assert seen["loading"]["captured_host_copies"] == 0


def test_state_is_blank_after_capture(seen: Report) -> None:
    """ONNX Runtime ran the model several times to capture it, each time renewing the state."""
    assert seen["loading"]["launches"] > 0
    assert seen["loading"]["graph_launches"] > 0
    assert seen["blank"] == [True, True]


def test_token_with_logits_is_one_launch_of_the_graph(seen: Report) -> None:
    costs = decoded(seen)
    assert len(costs) >= 5
    for cost in costs:
        assert (cost["graph_launches"], cost["launches"]) == (1, 0)
        assert cost["replayed_launches"] == seen["loading"]["captured_launches"]


def test_pieces_and_tokens_without_logits_are_not_captured(seen: Report) -> None:
    for step in seen["steps"]:
        if step["tokens"] == step["rows"] == 1:
            continue
        assert step["cost"]["graph_launches"] == 0, step
        assert step["cost"]["launches"] > 0, step


def test_sessions_that_come_and_go_use_the_same_graphs(seen: Report) -> None:
    graphs = [session["graphs"] for session in seen["sessions"]]
    assert graphs[1:] == [graphs[0]] * 3


def test_without_cuda_graphs_nothing_is_captured(tiny_model_dir: Path) -> None:
    plain = report(tiny_model_dir, "native", False)
    assert plain["loading"]["captures"] == 0
    assert all(cost["launches"] > 0 for cost in decoded(plain))
