"""A GGUF file's rope turns as llama.cpp turns it, which is how the decoder was trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_gguf
from decoders import decoder, relative_rms

from allmem_exporters import AllMemForCausalLM, ConfigError, ConversionError
from allmem_exporters.convert.conversion import convert
from allmem_exporters.model.config import AllMemConfig

MEMORY = {"window": 160, "sinks": 4, "chunk": 16, "mem_width": 16, "cache_dtype": "float32"}
SCALING = "llama.rope.scaling"


def logits(model: Any) -> torch.Tensor:
    """Of a text beyond the length of 64 that the scaled decoders were trained for."""
    with torch.no_grad():
        return model(torch.randint(0, 97, (1, 150), generator=torch.manual_seed(3))).logits


def converted(file: Path, out: Path) -> torch.Tensor:
    return logits(AllMemForCausalLM.from_pretrained(convert(file, out, **MEMORY)).eval())


@pytest.mark.parametrize(
    "fields",
    [
        {f"{SCALING}.type": "linear", f"{SCALING}.factor": 2.0},
        {f"{SCALING}.factor": 2.0},
        {"llama.rope.scale_linear": 2.0},
        {f"{SCALING}.factor": 2.0, "llama.rope.scale_linear": 9.0},
    ],
    ids=["kind and factor", "factor alone", "older name", "both names"],
)
def test_linear_scaling_is_read_by_every_name(tmp_path: Path, fields: dict[str, object]) -> None:
    file = tmp_path / "tiny.gguf"
    pretrained = write_gguf(file, "llama rope linear", extra_fields=fields)
    # float32: sums in another order, and transformers' angles are rounded to float32.
    assert relative_rms(converted(file, tmp_path / "out"), logits(pretrained)) < 1e-5
    assert relative_rms(logits(decoder("llama untied")), logits(pretrained)) > 1e-2, "it matters"


@pytest.mark.parametrize(
    "fields",
    [
        {f"{SCALING}.type": "none", f"{SCALING}.factor": 2.0},
        {f"{SCALING}.type": "linear"},
        {f"{SCALING}.factor": 1.0},
        {f"{SCALING}.factor": 0.0},
        {f"{SCALING}.type": "yarn", f"{SCALING}.original_context_length": 64},
    ],
    ids=["none", "no factor", "1", "0", "yarn without a factor"],
)
def test_scaling_that_scales_nothing_is_none(tmp_path: Path, fields: dict[str, object]) -> None:
    file = tmp_path / "tiny.gguf"
    pretrained = write_gguf(file, "llama untied", extra_fields=fields)
    assert relative_rms(converted(file, tmp_path / "out"), logits(pretrained)) < 1e-5


def test_yarn_is_read(tmp_path: Path) -> None:
    file, scaling = tmp_path / "tiny.gguf", "qwen2.rope.scaling"
    fields = {f"{scaling}.type": "yarn", f"{scaling}.factor": 4.0,
              f"{scaling}.original_context_length": 64}  # fmt: skip
    pretrained = write_gguf(file, "qwen2 rope yarn", extra_fields=fields)
    assert relative_rms(converted(file, tmp_path / "out"), logits(pretrained)) < 1e-5


def factors_of_llama3(pairs: int, theta: float, rope: dict[str, float]) -> np.ndarray:
    """What llama.cpp's converter writes for Llama 3.1, computed as it computes it."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    found = []
    for pair in range(pairs):
        length = 2 * math.pi * theta ** (pair / pairs)
        if length < high:
            found.append(1.0)
        elif length > low:
            found.append(rope["factor"])
        else:
            smooth = rope["original_max_position_embeddings"] / length - rope["low_freq_factor"]
            smooth /= rope["high_freq_factor"] - rope["low_freq_factor"]
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(found)


def test_factors_of_frequencies_are_those_of_llama_3(tmp_path: Path) -> None:
    rope = decoder("llama rope llama3").config.rope_parameters
    factors = factors_of_llama3(6, rope["rope_theta"], rope)
    assert 1.0 in factors and len(set(factors)) > 2
    file = tmp_path / "tiny.gguf"
    pretrained = write_gguf(file, "llama rope llama3", extra_tensors={"rope_freqs.weight": factors})
    assert relative_rms(converted(file, tmp_path / "out"), logits(pretrained)) < 1e-5
    plain = decoder("llama untied", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert relative_rms(logits(plain), logits(pretrained)) > 1e-2, "it matters"


def test_factors_beside_another_scaling_are_refused(tmp_path: Path) -> None:
    write_gguf(
        tmp_path / "tiny.gguf",
        extra_tensors={"rope_freqs.weight": np.ones(6)},
        extra_fields={f"{SCALING}.factor": 2.0},
    )
    with pytest.raises(ConversionError, match="rope_freqs.weight and linear"):
        convert(tmp_path / "tiny.gguf", tmp_path / "out", **MEMORY)


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        (None, "must be a list of"),
        ([1.0] * 31, "has 31 numbers; there must be one for each of 32"),
        ([], "must be a list of"),
        ([0.0] * 32, "must be a list of"),
        ("many", "must be a list of"),
    ],
)
def test_factors_that_cannot_be_meant_are_refused(factors: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AllMemConfig(rope_parameters={"rope_type": "factors", "factors": factors})
