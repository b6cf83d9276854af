"""Every node of an exported model runs on CUDA: asked of ONNX Runtime's real CUDA provider, which
is loaded on a stand-in device (tests/cuda_device)."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_reports import report

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture(scope="module", params=["float32", "float16"])
def model_dir(request: pytest.FixtureRequest) -> Path:
    """A tiny model with activations of either type."""
    name = "tiny_model_dir" if request.param == "float32" else "tiny_float16_model_dir"
    folder: Path = request.getfixturevalue(name)
    return folder


def test_every_node_runs_on_the_cuda_provider(model_dir: Path) -> None:
    nodes = report(model_dir)["placement"]["nodes"]
    assert list(nodes) == [CUDA], f"on the CPU: {sorted(nodes.get(CPU, []))}"
    assert nodes[CUDA].count("TTTMemory") == nodes[CUDA].count("SlidingWindowAttention") == 2


def test_nothing_is_copied_between_providers(model_dir: Path) -> None:
    assert report(model_dir)["placement"]["copies"] == []


def test_engine_uses_the_native_operators_and_cuda_graphs_without_a_notice(
    model_dir: Path,
) -> None:
    engine = report(model_dir)["engine"]
    assert (engine["operators"], engine["cuda_graph"]) == ("native", True)
    assert engine["notices"] == []
    assert engine["device"] == "cuda:0"
    assert "stand-in device, compute capability 8.6" in engine["why"]


def test_portable_operators_leave_only_index_arithmetic_on_the_cpu(tiny_model_dir: Path) -> None:
    """ONNX Runtime itself moves what computes shapes there; the work stays on the device."""
    found = report(tiny_model_dir, "portable")
    arithmetic = "Add Concat Equal GreaterOrEqual Less Mod Squeeze Sub Where"
    assert set(found["placement"]["nodes"][CPU]) <= set(arithmetic.split())
    assert set(found["placement"]["copies"]) == {"MemcpyFromHost"}  # the CPU waits for nothing
    engine = found["engine"]
    assert (engine["operators"], engine["cuda_graph"]) == ("portable", False)
    assert "without CUDA graphs" in " ".join(engine["notices"])
