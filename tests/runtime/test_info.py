"""The numbers of info, worked out by hand for a published decoder."""

from __future__ import annotations

import dataclasses

from allmem_runtime.config import Backbone, FileRecord, Manifest, Memory
from allmem_runtime.info import STATE_PARTS, full_attention_bytes, state_parts

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
