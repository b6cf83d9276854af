"""The table of pages and chapters beside the passages: where each begins."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from allmem_runtime.passages.rows import Mark, Region

_COLUMNS = "source, start, page, chapter"


def has(connection: sqlite3.Connection) -> bool:
    """Whether there is such a table."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'region'")
    return found.fetchone() is not None


def replace(connection: sqlite3.Connection, regions: Sequence[Region], after: Mark) -> None:
    """Take all behind a mark away, and add others; within a transaction."""
    place = (after.source, after.characters)
    connection.execute("DELETE FROM region WHERE (source, start) >= (?, ?)", place)
    connection.executemany(
        "INSERT OR REPLACE INTO region VALUES (?, ?, ?, ?)", [astuple(region) for region in regions]
    )


def between(
    connection: sqlite3.Connection, source: int, start: int, end: int
) -> list[tuple[Any, ...]]:
    """The rows of a source that begin from one of its characters up to another, in order."""
    return connection.execute(
        f"SELECT {_COLUMNS} FROM region WHERE source = ? AND start >= ? AND start < ? "
        "ORDER BY start",
        (source, start, end),
    ).fetchall()


def following(
    connection: sqlite3.Connection, first: tuple[int, int], until: Mark
) -> list[tuple[Any, ...]]:
    """The rows from a source and a character of it on, up to a mark, in order."""
    return connection.execute(
        f"SELECT {_COLUMNS} FROM region WHERE (source, start) >= (?, ?) AND "
        "(source, start) < (?, ?) ORDER BY source, start",
        (*first, until.source, until.characters),
    ).fetchall()


def at(connection: sqlite3.Connection, source: int, character: int) -> tuple[Any, ...] | None:
    """The row of the last page or chapter that begins at a character or before it."""
    found: tuple[Any, ...] | None = connection.execute(
        f"SELECT {_COLUMNS} FROM region WHERE source = ? AND start <= ? "
        "ORDER BY start DESC LIMIT 1",
        (source, character),
    ).fetchone()
    return found
