"""Spoils safetensors files: the header as JSON, its length, and the values."""

from __future__ import annotations

from random import Random

from hostile.fuzz.mutate_bytes import mutated_bytes
from hostile.fuzz.mutate_json import mutated_json_bytes


def mutated_tensors(data: bytes, draw: Random) -> bytes:
    """A safetensors file with changes."""
    length = int.from_bytes(data[:8], "little")
    if draw.random() < 0.3 or not 2 <= length <= len(data) - 8:
        return mutated_bytes(data, draw, 8 + min(length, 4096))
    header = mutated_json_bytes(data[8 : 8 + length], draw)
    told = len(header)
    if draw.random() < 0.1:
        told = draw.choice((0, 1, told - 1, told + 1, len(data) * 2, 1 << 40, (1 << 64) - 1))
    return told.to_bytes(8, "little") + header + data[8 + length :]
