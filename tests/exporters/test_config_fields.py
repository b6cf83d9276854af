"""Every field of a configuration is understood, without effect, or refused by its name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import write_folder
from decoders import DECODERS, decoder, relative_rms
from transformers import CONFIG_MAPPING

from allmem_exporters import ConversionError
from allmem_exporters.convert.conversion import convert
from allmem_exporters.convert.in_memory import convert_model
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.sources import config_fields, open_source


def changed(folder: Path, name: str = "llama tied", **values: Any) -> Path:
    write_folder(folder, name)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"is_causal": False}, "is_causal is False, which changes what the model computes"),
        ({"rope_interleaved": True}, "rope_interleaved is True, which changes"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is True"),
        ({"pretraining_tp": 2}, "pretraining_tp is 2"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ({"sliding_window": 16}, "sliding_window is '16', a field that llama decoders lack"),
        ({"attention_multiplier": 0.5}, "attention_multiplier is '0.5', a field that llama"),
        ({"no_such_field": False}, "no_such_field is 'False'"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2]}},
            "its rope has mrope_section, which is not understood",
        ),
        (
            {"rope_parameters": {"rope_type": "factors", "rope_theta": 1e4, "factors": [1.0] * 6}},
            "its rope is of the kind 'factors'",
        ),
    ],
)
def test_field_that_may_change_the_model_is_refused_by_name(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConversionError, match=said):
        open_source(str(changed(tmp_path / "source", **values)))


@torch.no_grad()
def test_attention_to_what_follows_is_refused_because_it_is_another_model() -> None:
    ids = torch.arange(20)[None]
    both, causal = decoder("llama tied", is_causal=False), decoder("llama tied")
    assert relative_rms(both(ids).logits, causal(ids).logits) > 1e-2
    with pytest.raises(ConversionError, match="is_causal is False"):
        convert_model(both, mem_width=16)


@pytest.mark.parametrize("name", ["llama tied", "qwen2", "qwen3 tied"])
def test_fields_without_effect_are_passed_over(tmp_path: Path, name: str) -> None:
    values = {
        "is_causal": True, "pretraining_tp": 1, "rope_interleaved": False, "use_mrope": False,
        "no_such_field": None, "torch_dtype": "float32", "attention_dropout": 0.1,
        "unsloth_version": "1", "temperature": 0.7, "use_cache": False, "is_decoder": True,
        "transformers.js_config": {"kv_cache_dtype": "float16"}, "architectures": ["Some"],
    }  # fmt: skip
    source = changed(tmp_path / "source", name, **values)
    assert convert(source, tmp_path / "out", window=32, mem_width=16).is_dir()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_of_a_family_is_known(family: str) -> None:
    known = (
        config_fields._UNDERSTOOD
        | config_fields._WITHOUT_EFFECT
        | config_fields._ONLY.keys()
        | FAMILIES[family].fields
        | set(FAMILIES[family].named.values())
    )
    assert {field.name for field in dataclasses.fields(CONFIG_MAPPING[family])} <= known


def test_every_family_has_decoders_here() -> None:
    assert {made[0].model_type for made in DECODERS.values()} == set(FAMILIES)
