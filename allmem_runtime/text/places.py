"""Where a piece of text stands in what was read: the words an answer can be checked by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextPlace:
    """The first character of a piece of text.

    Args:
        source: name of the source, without its folder; empty where it has none.
        line: line in the source, counted from 1.
        character: characters of the source before it.
        token: tokens the session had read before it; exact at the start of an encoded segment,
            in proportion to the characters within one.
        page: page of a document that has pages, counted from 1; 0 where it has none, as with all
            sources that are read today, which are plain text.
        chapter: heading it stands under, where the document tells; else empty, as today always.
    """

    source: str
    line: int
    character: int
    token: int
    page: int = 0
    chapter: str = ""

    def __str__(self) -> str:
        name = self.source or "text"
        if self.page:
            return f"{name}, page {self.page}"
        return f"{name}, {self.chapter}" if self.chapter else f"{name}:{self.line}"
