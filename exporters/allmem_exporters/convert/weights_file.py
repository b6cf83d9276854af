"""Writes safetensors files one weight at a time, as the library writes them with all in memory.

What is larger than a shard may be becomes several files and an index, named as transformers does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from allmem_exporters.local_files import SHARD_INDEX, SINGLE_FILE

Sizes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of each weight by name."""

MOST_SHARD_BYTES = 4_000_000_000
"""Of the weights in one file; one that is larger alone has a file of its own."""
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
}  # fmt: skip
"""The widest first, which is their order in the file."""
_ALIGNMENT = 8


def bytes_of(sizes: Sizes, name: str) -> int:
    """That a weight takes."""
    dtype, shape = sizes[name]
    return math.prod(shape) * dtype.itemsize


def write_weights(
    folder: Path,
    sizes: Sizes,
    read: Callable[[str], Iterable[Tensor]],
    *,
    most: int = MOST_SHARD_BYTES,
) -> None:
    """Write one file, or shards with an index.

    Args:
        folder: where they shall be.
        sizes: of the weights, in the order in which they go into shards.
        read: yields the rows of a weight in pieces.
        most: bytes of weights in a file.

    Raises:
        OSError: the disk is full, or a file cannot be written.
    """
    shards = list(_shards(sizes, most))
    if len(shards) == 1:
        write_weights_file(folder / SINGLE_FILE, sizes, read)
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_weights_file(folder / file, {name: sizes[name] for name in names}, read)
        places |= dict.fromkeys(names, file)
    total = sum(bytes_of(sizes, name) for name in sizes)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / SHARD_INDEX).write_text(text, encoding="utf-8")


def _shards(sizes: Sizes, most: int) -> Iterator[list[str]]:
    """Names of the weights of each shard."""
    names: list[str] = []
    taken = 0
    for name in sizes:
        size = bytes_of(sizes, name)
        if names and taken + size > most:
            yield names
            names, taken = [], 0
        names.append(name)
        taken += size
    yield names


def write_weights_file(path: Path, sizes: Sizes, read: Callable[[str], Iterable[Tensor]]) -> None:
    """Write a file.

    Args:
        path: of the file.
        sizes: of the weights in it.
        read: yields the rows of a weight in pieces.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    ranks = list(_TYPES)
    names = sorted(sizes, key=lambda name: (ranks.index(sizes[name][0]), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        dtype, shape = sizes[name]
        start, end = end, end + bytes_of(sizes, name)
        header[name] = {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            for piece in read(name):
                data = piece.to(sizes[name][0]).contiguous().flatten().view(torch.uint8).numpy()
                file.write(data.data)
