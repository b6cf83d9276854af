"""A GGUF file becomes the same AllMem checkpoint as the model it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import TEMPLATE, write_gguf
from decoders import relative_rms
from tokenizers import Tokenizer

from allmem_exporters import AllMemForCausalLM, ConversionError
from allmem_exporters.convert.conversion import convert

MEMORY = {"window": 32, "sinks": 4, "chunk": 16, "mem_width": 16}


NAMES = ["llama tied", "llama untied", "llama with wide heads", "qwen2", "qwen3 tied", "olmo2"]


@pytest.mark.parametrize("name", NAMES)
def test_gguf_gives_the_model_it_was_made_from(tmp_path: Path, name: str) -> None:
    pretrained = write_gguf(tmp_path / "tiny.gguf", name)
    out = convert(tmp_path / "tiny.gguf", tmp_path / "out", cache_dtype="float32", **MEMORY)
    model = AllMemForCausalLM.from_pretrained(out).eval()
    for key, tensor in pretrained.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key
    ids = torch.arange(32)[None] + 3
    with torch.no_grad():
        # float32: sums in another order, and transformers' angles are rounded to float32.
        assert relative_rms(model(ids).logits, pretrained(ids).logits) < 1e-5


def test_tokenizer_template_and_provenance_come_from_the_metadata(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    out = convert(tmp_path / "tiny.gguf", tmp_path / "out", **MEMORY)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert tokenizer.encode("th<|im_end|>").tokens == ["th", "<|im_end|>"]
    assert (out / "chat_template.jinja").read_text() == TEMPLATE
    assert json.loads((out / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    record = json.loads((out / "provenance.json").read_text())
    assert (record["kind"], record["name"]) == ("gguf", "tiny.gguf")
    assert (record["licence"], record["model"]) == ("apache-2.0", "Tiny")


@pytest.mark.parametrize(("split", "tokens"), [("smollm", ["1", "2"]), ("gpt-2", ["12"])])
def test_digits_are_split_as_the_file_says(tmp_path: Path, split: str, tokens: list[str]) -> None:
    write_gguf(tmp_path / "tiny.gguf", split=split)
    out = convert(tmp_path / "tiny.gguf", tmp_path / "out", **MEMORY)
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("12").tokens == tokens


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"extra_tensors": {"rope_freqs.weight": np.ones(4)}}, r"shape \[4\]; .* ask for \[6\]"),
        ({"extra_tensors": {"rope_freqs.weight": np.zeros(6)}}, "no number above 0"),
        ({"extra_tensors": {"blk.0.attn_sinks.weight": np.ones(4)}}, "blk.0.attn_sinks.weight"),
        (
            {"extra_tensors": {"blk.9.attn_norm.weight": np.ones(4)}},
            "model.layers.9.input_layernorm.weight",
        ),
        ({"extra_fields": {"llama.rope.scaling.type": "longrope"}}, "longrope"),
        ({"extra_fields": {"llama.attention.sliding_window": 8}}, "sliding window"),
        ({"extra_fields": {"llama.rope.dimension_count": 6}}, "6 rotated coordinates"),
        ({"split": "deepseek-coder"}, "deepseek-coder"),
        ({"extra_fields": {"split.no": 1, "split.count": 3}}, r"tiny\.gguf is part 2 of 3"),
    ],
    ids=[
        "rope tensor of another shape",
        "rope tensor without values",
        "unknown tensor",
        "unknown layer",
        "scaling",
        "window",
        "partial",
        "split",
        "part",
    ],
)
def test_what_gguf_cannot_say_here_is_refused(
    tmp_path: Path, options: dict[str, object], named: str
) -> None:
    write_gguf(tmp_path / "tiny.gguf", **options)  # type: ignore[arg-type]
    with pytest.raises(ConversionError, match=named):
        convert(tmp_path / "tiny.gguf", tmp_path / "out", **MEMORY)


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    for name, content in (("cut", whole[:3000]), ("other", b"nothing of the kind" * 9)):
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(content)
        with pytest.raises(ConversionError, match="not an intact GGUF file"):
            convert(file, tmp_path / "out", **MEMORY)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ConversionError, match="not a .gguf file"):
        convert(tmp_path / "weights.bin", tmp_path / "out")
