"""The table of vectors beside the passages: what parts of each mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

from allmem_runtime.passages import meaning
from allmem_runtime.passages.meaning import unit

_PASSAGES_AT_ONCE = 1024


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
    rows = connection.execute(
        "SELECT passage, parts FROM vectors WHERE passage <= ? AND made_by = ? ORDER BY passage",
        (last, meaning.TABLE),
    )
    found: dict[int, float] = {}
    while some := rows.fetchmany(_PASSAGES_AT_ONCE):
        # A damaged file may hold anything here; what is no row of whole vectors counts for nothing.
        some = [(n, p) for n, p in some if isinstance(p, bytes) and p and not len(p) % made.width]
        if not some:
            continue
        lengths = np.array([len(parts) // made.width for _, parts in some])
        parts = np.frombuffer(b"".join(parts for _, parts in some), np.int8)
        near = unit(parts.reshape(-1, made.width)) @ asked.T
        best = np.maximum.reduceat(near, np.cumsum(lengths) - lengths, axis=0) @ factors
        found |= zip((number for number, _ in some), best.tolist(), strict=True)
    return found
