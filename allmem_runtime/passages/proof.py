"""Proves that a text is the one a session has read: a chain of SHA-256 over its segments."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from allmem_runtime.passages.rows import Mark, Region
from allmem_runtime.passages.store import Store


def chained(
    identity: str,
    before: str,
    name: str,
    mark: Mark,
    text: str,
    regions: Sequence[Region] = (),
) -> Mark:
    """The mark with its digest: of the text before it, its own text, and where both stand.

    Args:
        identity: of the store.
        before: digest of the segment before; empty for the first.
        name: of the source.
        mark: the end of the segment; its digest counts for nothing.
        text: of the segment.
        regions: its pages and chapters.
    """
    where = dataclasses.astuple(mark)[:-1]
    known = [[region.start, region.page, region.chapter] for region in regions]
    # A segment without any has the digest it had before there were pages and chapters.
    head = json.dumps([identity, before, name, *where, *([known] if known else [])])
    digest = hashlib.sha256(head.encode() + b"\0" + text.encode()).hexdigest()
    return dataclasses.replace(mark, digest=digest)


def token_at(span: Mark, character: int) -> int:
    """Tokens the session had read before a character of a segment, in proportion."""
    passed = (character - span.start) * (span.tokens - span.first)
    return span.first + passed // max(1, span.characters - span.start)


def is_sound(store: Store, until: Mark) -> bool:
    """Whether all text up to a mark, and every place in it, is what was written.

    The index of words is not looked at: a changed one could hide a passage, never change one.
    """
    rows = store.rows(until)
    held, source, before, line = "", 0, "", 1
    last = Mark()
    ends: dict[tuple[str, int], set[int]] = {}  # lines by name of a source and characters of it
    for mark in store.marks(until):
        begins = mark.source != source
        if begins:
            if held:
                return False
            ends.setdefault((store.source(source), last.characters), set()).add(line)
            source, line = mark.source, 1
        size = mark.characters - mark.start
        while len(held) < size:
            row = next(rows, None)
            at = mark.start + len(held)
            if row is None:
                return False
            if begins and at == mark.start > 0:  # what was read of it before ended on such a line
                line = row.line if row.line in ends.get((store.source(source), at), ()) else 0
            if (row.source, row.start, row.line) != (source, at, line):
                return False
            if row.token != token_at(mark, at) or not row.text:
                return False
            held += row.text
            line += row.text.count("\n")
        own, held = held[:size], held[size:]
        name = store.source(source)
        regions = store.regions(mark.source, mark.start, mark.characters)
        if chained(store.identity, before, name, mark, own, regions).digest != mark.digest:
            return False
        before, last = mark.digest, mark
    return before == until.digest and not held and next(rows, None) is None
