"""What is asked of whole models on a GPU, rehearsed on the CPU: the same checks, another device."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_checks import (
    check_decode_is_the_same,
    check_logits,
    check_no_node_elsewhere,
    check_state_survives,
    on_cpu,
    write_tiny,
)

from allmem_runtime import load


def test_checks_of_whole_models_pass_on_the_cpu(tiny_model_dir: Path, tmp_path: Path) -> None:
    check_logits(tiny_model_dir, "cpu", {"device": "cpu", "operators": "portable"})
    first, second = (load(tiny_model_dir, device="cpu", threads=n) for n in (1, 2))
    check_decode_is_the_same(first, second, 60)
    check_state_survives(tiny_model_dir, "cpu", tmp_path / "saved.allmem")
    check_no_node_elsewhere(tiny_model_dir, "cpu", "CPUExecutionProvider")


def test_another_model_is_noticed(tiny_model_dir: Path, other_model_dir: Path) -> None:
    first, other = (load(folder, device="cpu") for folder in (tiny_model_dir, other_model_dir))
    with pytest.raises(AssertionError):
        check_decode_is_the_same(first, other, 60)


def test_a_model_with_float16_activations_has_a_counterpart_on_the_cpu(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", "float16")
    assert load(folder, **on_cpu(folder)).manifest.activations == "float16"
