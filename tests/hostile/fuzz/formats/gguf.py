"""A GGUF file, as `allmem convert` reads it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from checkpoints import write_gguf
from gguf import GGMLQuantizationType as Kind
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._gguf_parts import put_together, spoil, taken_apart
from hostile.fuzz.formats._pretrained import convert_into
from hostile.fuzz.mutate_bytes import mutated_bytes

FILE = "tiny.gguf"


def _make(folder: Path) -> None:
    write_gguf(folder / FILE, kinds={"proj": Kind.Q8_0}, hidden_size=64, intermediate_size=96)


def _mutate(files: Files, draw: Random) -> Files:
    data = files[FILE]
    if draw.random() < 0.2:
        return {FILE: mutated_bytes(data, draw, 4096)}
    parts = taken_apart(data)
    for _ in range(draw.choice((1, 1, 2))):
        spoil(parts, draw)
    return {FILE: put_together(parts)}


def _reader(good: Path) -> Read:
    return lambda folder: convert_into(folder / FILE, folder / "out")


FORMAT = Format("gguf", _make, _mutate, _reader, memory=1 << 31)
