"""What is told of a session file's state: its layout in words, and digests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allmem_runtime.quantities import counted, format_bytes

TYPES = {"float32": "F32", "float16": "F16", "int8": "I8"}
"""Element types as safetensors names them."""
_ELEMENTS = {name: element for element, name in TYPES.items()}


def shortened(digest: str) -> str:
    """What is told of a digest, or of whatever a file has in its place."""
    return digest[:12] if len(digest) == 64 else digest[:200]


def layout(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    """Bytes, layers, and how many rows of keys each has.

    Args:
        tensors: name to type, shape and byte range, as a header lists them; of whatever origin.
    """
    size = sum(last - first for first, last in (row["data_offsets"] for row in tensors.values()))
    keys = [row for name, row in tensors.items() if name.endswith(".key")]
    said = f"{format_bytes(size)} in {counted(len(keys), 'layer')}"
    if not keys:
        return said
    # [1, heads, rows, head_dim] with one window for all, [1, rows, head_dim] with windows by head.
    uniform = all(len(row["shape"]) == 4 for row in keys)
    rows = sorted(row["shape"][-2] for row in keys if len(row["shape"]) > 1) or [0]
    many = f"{rows[0]:,}" if rows[0] == rows[-1] else f"{rows[0]:,} to {rows[-1]:,}"
    whose = "for every head" if uniform else "a layer, windows by head"
    return f"{said}, {many} rows of {_ELEMENTS[keys[0]['dtype']]} {whose}"
