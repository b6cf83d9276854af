"""A decoder of an unknown family is refused with what it has and with the nearest known ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_folder

from allmem_exporters import ConfigError, ConversionError
from allmem_exporters.convert.conversion import convert
from allmem_exporters.sources import open_source


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("mixtral", {"num_local_experts": 8}, "it has a mixture of experts, which nothing"),
        ("qwen3_moe", {"num_experts": 8}, "a mixture of experts.*Nearest by name: qwen3"),
        ("t5", {"is_encoder_decoder": True}, "it has an encoder"),
        ("llava", {"vision_config": {"a": 1}}, "a part that sees or hears"),
        ("mamba2", {"state_size": 8}, "layers with a state of their own"),
        ("no such model", {}, "'no such model', which cannot be converted. Supported are cohere"),
    ],
)
def test_family_is_refused_with_what_is_missing(
    tmp_path: Path, kind: str, values: dict[str, Any], said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **values}))
    with pytest.raises(ConversionError, match=said):
        open_source(str(tmp_path))


def test_windows_beyond_the_trained_one_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "mistral")
    with pytest.raises(ConfigError, match="window is 201; the model was trained with a window of"):
        convert(tmp_path / "source", tmp_path / "out", window=201, mem_width=16)


def test_biases_that_a_family_cannot_have_here_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "seed_oss")
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_out_bias": True}))
    with pytest.raises(ConversionError, match="attention_out_bias True; only biases on the inputs"):
        open_source(str(tmp_path / "source"))


def test_multiplier_that_nothing_can_be_divided_by_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "granite")
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"logits_scaling": 0.0}))
    with pytest.raises(ConversionError, match="what cannot be meant .*division by zero"):
        open_source(str(tmp_path / "source"))
