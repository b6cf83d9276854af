"""Pieces of a text: how long they may be, and the check that no kernel can make.

A CUDA kernel reads the position on the device and cannot refuse it; a wrong one would write
outside its tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.config import Manifest
from allmem_runtime.errors import UsageError

DEFAULT_PIECE = 256

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


def piece_length(manifest: Manifest) -> int:
    """Most tokens fed at once."""
    return min(DEFAULT_PIECE, manifest.chunk)


def check_piece(chunk: int, ids: NDArray[Any], position: int, rows: NDArray[Any]) -> None:
    """Refuse a piece that the operators are not made for.

    Args:
        chunk: tokens between two commits of the memory.
        ids: [time].
        position: absolute index of the first token.
        rows: [rows], which tokens of the piece want logits.

    Raises:
        UsageError: it is empty, begins before the text, or crosses a multiple of ``chunk``.
    """
    count = len(ids)
    if position < 0 or not count:
        raise UsageError(
            f"A piece of {count} tokens at position {position} cannot be fed.",
            "Feed at least one token, at position 0 or later.",
        )
    if position % chunk + count > chunk:
        raise UsageError(
            f"{count} tokens at position {position} cross the end of a chunk of {chunk}.",
            f"Feed at most {chunk - position % chunk} here.",
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise UsageError(
            f"Logits of row {rows.max()} of {count} tokens are wanted.", "Rows count from 0."
        )
