"""The table of vectors beside the passages: what parts of each mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

from allmem_runtime.passages import meaning
from allmem_runtime.passages.cutting import LONGEST
from allmem_runtime.passages.meaning import SPAN, unit

_PASSAGES_AT_ONCE = 1024

_MOST_SPANS = LONGEST // SPAN + 1
"""Of a passage: each but the last has ``SPAN`` characters at least."""


def has(connection: sqlite3.Connection) -> bool:
    """Whether there is such a table."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'vectors'")
    return found.fetchone() is not None


def add(connection: sqlite3.Connection, number: int, text: str) -> None:
    """The vectors of a passage, if they can be made.

    Args:
        connection: to the tables, within a transaction.
        number: of the passage.
        text: what it says.
    """
    made = meaning.shared()
    if made is not None:
        connection.execute(
            "INSERT INTO vectors VALUES (?, ?, ?)",
            (number, meaning.TABLE, made.spans(text).tobytes()),
        )


def drop(connection: sqlite3.Connection, number: int) -> None:
    """Forget those of a passage."""
    connection.execute("DELETE FROM vectors WHERE passage = ?", (number,))


def cosines(
    connection: sqlite3.Connection, texts: Sequence[tuple[str, float]], last: int
) -> dict[int, float]:
    """How near passages come to texts by what they mean; see ``Store.meanings``."""
    made = meaning.shared()
    if made is None or not texts:
        return {}
    asked = made.of([text for text, _ in texts])
    factors = np.array([factor for _, factor in texts], np.float32)
    # A damaged file may hold anything here; what is no row of whole vectors counts for nothing, and
    # is not read: it may be larger than memory.
    rows = connection.execute(
        "SELECT passage, parts FROM vectors WHERE passage BETWEEN 1 AND ? AND made_by = ? "
        "AND typeof(parts) = 'blob' AND length(parts) BETWEEN 1 AND ? AND length(parts) % ? = 0 "
        "ORDER BY passage",
        (last, meaning.TABLE, made.width * _MOST_SPANS, made.width),
    )
    found: dict[int, float] = {}
    while some := rows.fetchmany(_PASSAGES_AT_ONCE):
        lengths = np.array([len(parts) // made.width for _, parts in some])
        parts = np.frombuffer(b"".join(parts for _, parts in some), np.int8)
        near = unit(parts.reshape(-1, made.width)) @ asked.T
        best = np.maximum.reduceat(near, np.cumsum(lengths) - lengths, axis=0) @ factors
        found |= zip((number for number, _ in some), best.tolist(), strict=True)
    return found
