"""A pretrained model in transformers' layout, whole or in shards, as `allmem convert` reads it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from checkpoints import write_folder
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._pretrained import convert_into
from hostile.fuzz.formats._safetensors import mutated_tensors
from hostile.fuzz.mutate_bytes import mutated_bytes
from hostile.fuzz.mutate_json import mutated_json_bytes

SHARDS = "shards"
WHOLE = "whole"


def _make(folder: Path) -> None:
    write_folder(folder / WHOLE)
    write_folder(folder / SHARDS, "qwen3 rope yarn")
    for path in (folder / SHARDS).glob("*.safetensors"):
        path.unlink()
    from decoders import decoder

    decoder("qwen3 rope yarn").save_pretrained(folder / SHARDS, max_shard_size="60KB")


def _mutate(files: Files, draw: Random) -> Files:
    names = [name for name in files if not name.startswith("out")]
    settings = [name for name in names if name.endswith((".index.json", "/config.json"))]
    name = draw.choice([*names, *settings * 4])
    data = files[name]
    if name.endswith(".safetensors"):
        return {name: mutated_tensors(data, draw)}
    if name.endswith(".json"):
        return {name: mutated_json_bytes(data, draw)}
    return {name: mutated_bytes(data, draw)}


def _reader(good: Path) -> Read:
    known = {path: path.read_bytes() for path in good.rglob("*") if path.is_file()}

    def is_changed(folder: Path, source: str) -> bool:
        return any(
            (folder / path.relative_to(good)).read_bytes() != data
            for path, data in known.items()
            if path.is_relative_to(good / source)
        )

    def read(folder: Path) -> None:
        sources = [source for source in (WHOLE, SHARDS) if is_changed(folder, source)]
        for source in sources or (WHOLE, SHARDS):  # the good one is no mutation
            convert_into(folder / source, folder / "out")

    return read


FORMAT = Format("pretrained", _make, _mutate, _reader, memory=1 << 31)
