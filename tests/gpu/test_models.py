"""Whole models on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda_runtime")]

STEPS = 2000


def test_logits_are_those_of_the_cpu(model_dir: Path) -> None:
    from model_checks import check_logits, on_cpu

    check_logits(model_dir, "cuda", on_cpu(model_dir))


def test_greedy_decoding_with_and_without_captured_graphs_is_identical(model_dir: Path) -> None:
    from model_checks import check_decode_is_the_same

    from allmem_runtime import load

    captured = load(model_dir, device="cuda", cuda_graph=True)
    assert captured.engine.cuda_graph, captured.engine.notice
    plain = load(model_dir, device="cuda", cuda_graph=False)
    check_decode_is_the_same(captured, plain, STEPS)


def test_saved_forked_and_resumed_state_goes_on_identically(
    model_dir: Path, tmp_path: Path
) -> None:
    from model_checks import check_state_survives

    check_state_survives(model_dir, "cuda", tmp_path / "saved.allmem")


def test_no_node_runs_on_the_cpu(model_dir: Path) -> None:
    from model_checks import check_no_node_elsewhere

    check_no_node_elsewhere(model_dir, "cuda", "CUDAExecutionProvider")


def test_saved_state_of_the_device_is_opened_on_the_cpu(model_dir: Path, tmp_path: Path) -> None:
    from model_checks import ids_of, on_cpu
    from session_tools import assert_same

    from allmem_runtime import load

    session = load(model_dir, device="cuda").session()
    session.feed(ids_of(session.model, 50))
    session.save(tmp_path / "saved.allmem")
    assert_same(session, load(model_dir, **on_cpu(model_dir)).open(tmp_path / "saved.allmem"))
