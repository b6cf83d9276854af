"""What the tables of a text hold, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of an encoded segment, at which a session can stand.

    Args:
        source: number of the source, from 1; 0 at the very beginning.
        bytes: bytes of the source up to here.
        start: characters of the source before the segment.
        characters: characters of the source up to here.
        first: tokens the session had read before the segment.
        tokens: tokens it had read at its end.
        digest: SHA-256 of all text up to here and its places; empty at the very beginning.
    """

    source: int = 0
    bytes: int = 0
    start: int = 0
    characters: int = 0
    first: int = 0
    tokens: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A passage as it is stored: the number of its source, its place and what it says."""

    source: int
    start: int
    line: int
    token: int
    text: str


@dataclass(frozen=True, slots=True)
class Region:
    """Text of a source that stands on one page, or in one chapter, as it is stored.

    Args:
        source: number of the source.
        start: characters of the source before it.
        page: counted from 1; 0 for none.
        chapter: its heading; empty for none.
    """

    source: int
    start: int
    page: int
    chapter: str


def cut_at(row: Row, mark: Mark) -> Row:
    """A passage, or what of it stands before a mark."""
    if row.source < mark.source or row.start + len(row.text) <= mark.characters:
        return row
    return Row(row.source, row.start, row.line, row.token, row.text[: mark.characters - row.start])
