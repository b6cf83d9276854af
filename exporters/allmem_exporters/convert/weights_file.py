"""Writes a safetensors file one weight at a time, as the library writes it with all in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
}  # fmt: skip
"""The widest first, which is their order in the file."""
_ALIGNMENT = 8


def write_weights_file(
    path: Path,
    sizes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    read: Callable[[str], Iterable[Tensor]],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a file.

    Args:
        path: of the file.
        sizes: type and shape of each weight.
        read: yields the rows of a weight in pieces.
        report: is told how many bytes of how many are written.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    ranks = list(_TYPES)
    names = sorted(sizes, key=lambda name: (ranks.index(sizes[name][0]), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        dtype, shape = sizes[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        done = 0
        for name in names:
            for piece in read(name):
                data = piece.to(sizes[name][0]).contiguous().flatten().view(torch.uint8).numpy()
                file.write(data.data)
                done += data.nbytes
                report(done, end)
