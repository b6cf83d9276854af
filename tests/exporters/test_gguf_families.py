"""A GGUF file of every family that is read gives the decoder it was made from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import sentence_pieces, write_gguf
from converter import architecture
from decoders import DECODERS, relative_rms
from test_gguf_rope import factors_of_llama3

from allmem_exporters import ConversionError
from allmem_exporters.convert.conversion import convert
from allmem_exporters.convert.converted_reading import converted_logits
from allmem_exporters.convert.opening import open_conversion
from allmem_exporters.convert.pretrained_reading import PretrainedReading
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.reading import generic_logits
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.sources import open_source
from allmem_exporters.sources.gguf_architectures import ARCHITECTURES

OPTIONS = MemoryOptions(window=64, sinks=4, chunk=16, mem_width=16)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
HALF = {**ROPE, "partial_rotary_factor": 0.5}
YARN = {**ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LOCAL, WHOLE = "sliding_attention", "full_attention"


def layers(period: int) -> dict[str, Any]:
    """A local layer, and one that sees everything, more than a period of them."""
    kinds = [WHOLE if (at + 1) % period == 0 else LOCAL for at in range(period + 1)]
    return {"num_hidden_layers": len(kinds), "layer_types": kinds, "sliding_window": 24}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama untied", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3 tied", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 16}),
    "gemma3": (
        "gemma3_text",
        {
            **layers(6),
            "query_pre_attn_scalar": 16,
            "final_logit_softcapping": 3.0,
            "rope_parameters": {LOCAL: {**ROPE, "rope_theta": 3000.0}, WHOLE: ROPE},
        },
    ),
    "phi3": ("phi3", {}),
    "phi3 partial": ("phi3 partial rope", {}),
    "granite": ("granite", {}),
    "granite tied, with biases": ("granite tied, with biases", {}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 1, 1, 0]}),
    "seed_oss": ("seed_oss", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {**layers(4), "rope_parameters": {LOCAL: ROPE, WHOLE: ROPE}}),
    "exaone4": ("exaone4 without windows", {}),
    "exaone4 with windows": ("exaone4", {"rope_parameters": ROPE}),
    "glm4": ("glm4", {}),
    "command-r": ("cohere", {}),
    "cohere2": ("cohere2", layers(4)),
    "starcoder2": ("starcoder2", {"sliding_window": None}),
    "stablelm": ("stablelm", {}),
    "stablelm parallel": ("stablelm", {"use_parallel_residual": True, "use_qkv_bias": True}),
    "gptneox": ("gpt_neox", {"rope_parameters": HALF}),
    "gptneox one after the other": (
        "gpt_neox",
        {"rope_parameters": HALF, "use_parallel_residual": False},
    ),
    "nemotron": ("nemotron", {}),
    "arcee": ("arcee", {}),
    "phi2": ("phi", {}),
    "ernie4_5": ("ernie4_5", {}),
}
"""The decoder that a file is made from, and how it differs from the tests' or the table's."""


def test_every_architecture_is_read_here() -> None:
    kinds = (
        DECODERS[name][0].model_type if name in DECODERS else name for name, _ in CASES.values()
    )
    assert {*map(architecture, kinds), "exaone"} == set(ARCHITECTURES)


def test_document_names_every_architecture() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    section = text.split("## GGUF files")[1].split("What the converter changed")[0]
    assert set(re.findall(r"`([\w-]+)`", section)) == set(ARCHITECTURES)


def read_twice(file: Path, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of our reading of a file, and of transformers' own code on its second reading."""
    source, weights, _ = open_conversion(
        file, OPTIONS, seed=0, dtype=None, revision=None, memory=None
    )
    config, words = weights.config, list(range(weights.config.vocab_size))
    window = config.trained_window or OPTIONS.window
    if isinstance(config, GenericConfig):
        ours = generic_logits(weights, words, ids, window, torch.float32)
    else:
        local = config.local_window or window
        ours = converted_logits(weights, words, ids, window, local, torch.float32)
    theirs = PretrainedReading(
        source.pretrained(), words, config.local_window or window, torch.float32, torch.float32
    )
    return ours, theirs.logits(ids)


@pytest.mark.parametrize("case", CASES)
def test_file_gives_the_decoder_it_was_made_from(tmp_path: Path, case: str) -> None:
    name, changes = CASES[case]
    model = write_gguf(tmp_path / "tiny.gguf", name, **changes)
    ids = (torch.arange(40) % 90 + 3).tolist()
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
    # float32: sums in another order, and the 1 that was added to weights of norms.
    for found in read_twice(tmp_path / "tiny.gguf", ids):
        assert relative_rms(found, wanted) < 1e-5


def test_exaone_3_is_llama_in_another_order_of_rows(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    model = write_gguf(file, "llama rope llama3", architecture_name="exaone",
                       extra_tensors={"rope_freqs.weight": llama3_factors()})  # fmt: skip
    ids = (torch.arange(150) % 90 + 3).tolist()
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
    source = open_source(str(file))
    assert source.backbone["backbone"] == "llama"
    assert torch.equal(
        source.tensor("model.layers.0.self_attn.q_proj.weight"),
        model.model.layers[0].self_attn.q_proj.weight,
    )
    theirs = PretrainedReading(
        source.pretrained(), range(97), 64, torch.float32, torch.float32
    ).logits(ids)
    assert relative_rms(theirs, wanted) < 1e-5


def llama3_factors() -> np.ndarray:
    rope = DECODERS["llama rope llama3"][2]["rope_parameters"]
    return factors_of_llama3(6, rope["rope_theta"], rope)


@pytest.mark.parametrize("name", ["gemma", "stablelm"])
def test_file_of_either_path_is_converted_and_checked(tmp_path: Path, name: str) -> None:
    write_gguf(tmp_path / "tiny.gguf", name, split="stablelm2")
    lines: list[str] = []
    convert(tmp_path / "tiny.gguf", tmp_path / "out", OPTIONS, report=lines.append)
    assert [line.split(":")[0] for line in lines] == [
        "compared",
        "compared with transformers' own code" + (
            "" if name == "gemma" else ", without a memory and with our attention in it"
        ),
    ]  # fmt: skip


def test_tokens_that_a_file_does_not_name_are_none(tmp_path: Path) -> None:
    def unnamed(writer: Any) -> None:
        sentence_pieces(writer)
        for name in ("bos", "eos"):
            del writer.kv_data[0][f"tokenizer.ggml.{name}_token_id"]

    write_gguf(tmp_path / "tiny.gguf", "phi3", tokenizer=unnamed)
    backbone = open_source(str(tmp_path / "tiny.gguf")).backbone
    assert [backbone[f"{one}_token_id"] for one in ("bos", "eos", "pad")] == [None] * 3


def test_yarn_of_olmo_3_is_that_of_its_global_layers(tmp_path: Path) -> None:
    rope = {LOCAL: ROPE, WHOLE: {**YARN, "attention_factor": 1.3, "beta_fast": 16.0}}
    key = "olmo2.rope.scaling"
    fields = {f"{key}.type": "yarn", f"{key}.factor": 4.0, f"{key}.original_context_length": 64,
              f"{key}.yarn_attn_factor": 1.3, f"{key}.yarn_beta_fast": 16.0}  # fmt: skip
    file = tmp_path / "tiny.gguf"
    model = write_gguf(file, "olmo3", extra_fields=fields, **layers(4), rope_parameters=rope)
    ids = (torch.arange(100) % 90 + 3).tolist()
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
    source, weights, _ = open_conversion(
        file, MemoryOptions(window=100, chunk=16, mem_width=16), seed=0, dtype=None, revision=None,
        memory=None,
    )  # fmt: skip
    found = converted_logits(weights, range(97), ids, 100, 24, torch.float32)
    assert relative_rms(found, wanted) < 1e-5


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gemma3_text", {"removed": "gemma3.attention.sliding_window"}, "local layers need"),
        (
            "exaone4",
            {"extra_fields": {"exaone4.attention.sliding_window_pattern": [True]}},
            "has 1 entries for 3 layers",
        ),
        ("cohere", {"extra_tensors": {"blk.0.attn_q_norm.weight": np.ones(12)}}, "single heads"),
        ("stablelm", {"extra_tensors": {"blk.0.attn_q_norm.weight": np.ones(12)}}, "single heads"),
        ("granite", {"extra_fields": {"granite.rope.scaling.finetuned": False}}, "finetuned"),
        ("phi3", {"extra_fields": {"phi3.rope.scaling.type": "longrope"}}, "longrope"),
        ("phi3", {"extra_tensors": {"rope_factors_long.weight": np.ones(6)}}, "longrope"),
        ("arcee", {"extra_tensors": {"rope_freqs.weight": np.ones(6)}}, "rope_freqs.weight in a"),
        ("glm4", {"extra_fields": {"glm4.rope.dimension_sections": [2, 2, 0]}}, "dimension_sect"),
        ("starcoder2", {"extra_tensors": {"blk.0.ffn_gate.weight": np.ones(4)}}, "ffn_gate"),
        (
            "stablelm",
            {"extra_fields": {"stablelm.attention.key_length": 8}},
            "no head_dim, which is 8",
        ),
        ("gemma", {"extra_fields": {"gemma.attention.sliding_window": 8}}, "sliding window"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(
    tmp_path: Path, name: str, options: dict[str, Any], said: str
) -> None:
    changes = {"query_pre_attn_scalar": 16} if name == "gemma3_text" else {}
    write_gguf(tmp_path / "tiny.gguf", name, **options, **changes)
    with pytest.raises(ConversionError, match=said) as raised:
        open_conversion(tmp_path / "tiny.gguf", OPTIONS, seed=0, dtype=None, revision=None,
                        memory=None)  # fmt: skip
    assert raised.value.hint


def test_unknown_architecture_is_refused_with_those_that_are_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", architecture_name="minicpm")
    with pytest.raises(ConversionError, match=r"its architecture is 'minicpm'") as raised:
        open_source(str(tmp_path / "tiny.gguf"))
    assert "command-r" in str(raised.value.hint) and "original safetensors" in raised.value.hint
