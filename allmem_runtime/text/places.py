"""Where a piece of text stands in what was read: the words an answer can be checked by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TextPlace:
    """The first character of a piece of text.

    Args:
        source: name of the source, without its folder; empty where it has none.
        line: line in the source, counted from 1; of a document, line of its text.
        character: characters of the source before it.
        token: tokens the session had read before it; exact at the start of an encoded segment,
            in proportion to the characters within one.
        page: page of a document that has pages, counted from 1; 0 where it has none.
        chapter: heading it stands under, or file of an archive, where the document tells; else
            empty.
    """

    source: str
    line: int
    character: int
    token: int
    page: int = 0
    chapter: str = ""

    def __str__(self) -> str:
        name = self.source or "text"
        if not self.page and not self.chapter:
            return f"{name}:{self.line}"
        page = f"page {self.page}" if self.page else ""
        return ", ".join(part for part in (name, self.chapter, page) if part)


@dataclass(frozen=True, slots=True)
class Landmark:
    """From here on a text stands on a page, or in a chapter.

    Args:
        at: where, as an offset that whoever holds it counts.
        page: counted from 1; 0 for none.
        chapter: its heading; empty for none.
    """

    at: int
    page: int
    chapter: str


class Landmarks(Protocol):
    """The pages and chapters of one source."""

    def within(self, first: int, end: int) -> Sequence[Landmark]:
        """Those between two bytes of its text, counted in bytes of it, in order.

        Args:
            first: byte; where a page or chapter goes on there, a landmark stands at it.
            end: byte behind the last.
        """


def landmarks_of(text: str, first: int, end: int, known: Landmarks | None) -> tuple[Landmark, ...]:
    """The landmarks of a piece of a source, counted in characters of the piece.

    Args:
        text: the piece, whose bytes in UTF-8 are those of the source.
        first: bytes of the source before it.
        end: bytes of the source up to its end.
        known: of the source; None where it has none.
    """
    if known is None:
        return ()
    found = known.within(first, end)
    if not found:
        return ()
    data = text.encode("utf-8", "replace")
    return tuple(
        Landmark(len(data[: mark.at - first].decode("utf-8", "ignore")), mark.page, mark.chapter)
        for mark in found
    )
