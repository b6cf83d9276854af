"""The numbers of info, worked out by hand for a published decoder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_config, write_tiny_model

from allmem_runtime.config import Backbone, FileRecord, Manifest, Memory
from allmem_runtime.errors import ModelFileError
from allmem_runtime.info import (
    STATE_PARTS,
    full_attention_bytes,
    model_info,
    model_lines,
    state_parts,
)

QWEN3_0_6B = Manifest(
    name="qwen3-0.6b",
    backbone=Backbone("qwen3", 28, 1024, 3072, 16, 8, 128, 151936, 40960),
    memory=Memory(heads=4, width=512, hidden=256, kernel=4),
    window=4096,
    sinks=4,
    chunk=256,
    cache="float16",
    weights="float16",
    operators={},
    begin_tokens=(),
    end_tokens=(),
    files={"tokenizer.json": FileRecord(1, "0" * 64)},
)


def test_full_attention_of_qwen3_takes_107_gib_for_a_million_tokens() -> None:
    # Keys and values x 28 layers x 8 heads x 128 x 2 bytes = 112 KiB a token.
    assert full_attention_bytes(QWEN3_0_6B, 1) == 114688
    assert round(full_attention_bytes(QWEN3_0_6B, 1_000_000) / 2**30) == 107
    assert round(full_attention_bytes(QWEN3_0_6B, 131_072) / 2**30) == 14


def test_the_parts_of_the_state_add_up_and_are_all_explained() -> None:
    parts = state_parts(QWEN3_0_6B)
    assert sum(parts.values()) == QWEN3_0_6B.state.nbytes
    assert parts["key"] == parts["value"] == 4100 * 8 * 128 * 2 * 28
    # Only a cache of int8 has scales.
    with_scales = state_parts(dataclasses.replace(QWEN3_0_6B, cache="int8"))
    assert set(parts) | {"scale"} == set(with_scales) == set(STATE_PARTS)


def test_windows_by_head_are_counted_and_drawn(tmp_path: Path) -> None:
    config = tiny_config(windows=[[24, 100], [16, 16]])
    lines = list(model_lines(model_info(write_tiny_model(tmp_path / "model", config))))
    at = next(number for number, line in enumerate(lines) if line.startswith("windows"))
    assert lines[at] == "windows    of 4 key/value heads 2 see 16, 1 sees 24, 1 sees 100 tokens"
    row = 2 * 2 * 8  # a key and a value of 8 numbers in float16
    taken = [2 * (16 + 4) * row, (24 + 4) * row, (100 + 4) * row]
    assert lines[at + 1].strip() == (
        "their keys and values take 1.2 KiB for 2, 896 B for 1, 3.2 KiB for 1"
    )
    info = model_info(tmp_path / "model")
    assert [one["bytes"] for one in info["state"]["windows"]] == taken
    assert sum(taken) == info["state"]["parts"]["key"] + info["state"]["parts"]["value"]
    assert any("the last 16 to 100 tokens, by head, and the first 4" in line for line in lines)
    assert [line.split()[:3] for line in lines[at + 2 : at + 4]] == [
        ["head", "0", "▅▁"],
        ["head", "1", "█▁"],
    ]


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        ([[24, 100]], "2 windows for each of 2 layers"),
        ([[24, 100], [16]], "2 windows for each of 2 layers"),
        ("wide", "2 windows for each of 2 layers"),
        ([[24, 100], [16, 0]], "window is 0"),
        ([[24, 100], [16, True]], "window is True"),
        ([[24, 101], [16, 16]], "the longest of windows 101"),
        ([[24, 100], [16, 15]], "larger than window 15"),
    ],
)
def test_windows_that_cannot_be_are_refused_by_name(windows: Any, says: str) -> None:
    backbone = dataclasses.replace(QWEN3_0_6B.backbone, layers=2, kv_heads=2, query_heads=2)
    manifest = dataclasses.replace(
        QWEN3_0_6B, backbone=backbone, window=100, chunk=16, windows=((24, 100), (16, 16))
    )
    text = manifest.to_json()
    assert Manifest.from_json(text, "allmem.json") == manifest
    with pytest.raises(ModelFileError, match=says):
        Manifest.from_json(json.dumps(json.loads(text) | {"windows": windows}), "allmem.json")
