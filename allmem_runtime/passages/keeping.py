"""Keeps the text that a session reads in step with the session.

A session stands at a digest: the SHA-256 of all text it has taken, with its places. Everything is
asked for by that digest, so a session that was taken back, forked or killed finds just the text it
has read, and a file that does not have the digest is none of this session's.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from allmem_runtime.errors import PassagesError
from allmem_runtime.passages import schema
from allmem_runtime.passages.cutting import LOOK, Cut, Cutter
from allmem_runtime.passages.likeness import Likeness
from allmem_runtime.passages.proof import chained, is_sound, token_at
from allmem_runtime.passages.rows import Mark, Region, Row
from allmem_runtime.passages.search import known, search
from allmem_runtime.passages.store import Store
from allmem_runtime.session.kept_text import Passage, Segment
from allmem_runtime.text.segments import without_surrogates

BATCH_CHARACTERS = 1 << 18
"""Text that is held back before it is written: some tenths of a second's work."""

_REMEDY = "Questions are answered from the state alone; read the document again to have its text."


class Text:
    """The text of one session, to be added to and to be looked into.

    Args:
        home: the file it is written to; None for a private temporary one.
        like: compares questions and passages by the model's embedding; None where only their words
            are compared.
    """

    def __init__(self, home: Path | None, like: Likeness | None = None) -> None:
        self._home, self._like = home, like
        self._store: Store | None = None
        self._shared = False  # it is another session's store: what is added goes on top of it
        self._below: list[_Level] = []
        self._head = Mark()
        self._cutter = Cutter()
        self._spans: list[Mark] = []  # the segments that hold what is not cut yet
        # What is not written yet, and where the store is to be cut off before it is.
        self._names: list[tuple[int, str]] = []
        self._marks: list[Mark] = []
        self._rows: list[Row] = []
        self._regions: list[Region] = []
        self._held = 0
        self._base = Mark()
        self._tail = (0, 0)

    @classmethod
    def beside(cls, session: Path, at: str, like: Likeness | None = None) -> Text:
        """The text of a session file, verified against the digest that the session stands at.

        A file that is ahead of its session, because the process that wrote both was killed, is
        taken up to where the session stands.

        Raises:
            PassagesError: it is missing, changed, locked or another session's.
        """
        path = schema.beside(session)
        text = cls(path, like)
        if not at:
            return text
        text._store = Store.open(path).share(text)
        mark = text._store.mark(at)
        if mark is None or not is_sound(text._store, mark):
            text._store.close()
            raise PassagesError(
                f"{path} is not the text that {session.name} has read: it was changed, or belongs "
                "to another session.",
                _REMEDY,
            )
        text._go_to(mark)
        return text

    def fork(self) -> Text:
        """The same text for a fork of the session; what the fork adds is its own."""
        self._flush()
        other = Text(None, self._like)
        other._store, other._shared = self._store, self._store is not None
        other._below, other._head = list(self._below), self._head
        for level in self._below:
            level.store.share(other)
        if self._store is not None:
            self._store.share(other)
        return other

    def close(self) -> None:
        """Leave its file; what was saved stays, and forks keep what they have read."""
        if self._store is not None and not self._shared:
            self._store = self._store.own(self)
            self._store.close()

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        self._flush()
        return self._store.nbytes if self._store else 0

    def take(self, at: str, segment: Segment) -> str:
        """Add an encoded segment; see ``KeptText``."""
        store = self._own(at)
        head = self._head
        if segment.first_byte == 0 or segment.begins or not head.source:
            name = without_surrogates(segment.source)
            start, line = self._end_of(name, segment.first_byte)
            self._rows += self._placed(self._cutter.rest())
            head = Mark(source=head.source + 1, digest=head.digest, characters=start)
            self._names.append((head.source, name))
            self._cutter, self._spans = Cutter(start, line), []
        mark = Mark(
            source=head.source,
            bytes=segment.end_byte,
            start=head.characters,
            characters=head.characters + len(segment.text),
            first=segment.token,
            tokens=segment.token + segment.tokens,
        )
        regions = self._regions_of(segment, mark)
        name = self._name(mark.source)
        mark = chained(store.identity, head.digest, name, mark, segment.text, regions)
        self._head = mark
        self._marks.append(mark)
        self._regions += regions
        self._spans.append(mark)
        self._rows += self._placed(self._cutter.push(segment.text))
        self._spans = [span for span in self._spans if span.characters > self._cutter.start]
        self._held += len(segment.text)
        if self._held >= BATCH_CHARACTERS:
            self._flush()
        return mark.digest

    def save(self, at: str, session: Path) -> None:
        """Have the text on disk beside a session file that is about to be written."""
        if not at:
            return
        path = schema.beside(session)
        self._flush()
        levels = self._levels(at)
        first = levels[0].store
        if first.path != path:
            target = first.copy(path)
        else:
            target = first.own(self) if len(levels) > 1 else first
        for below, level in itertools.pairwise(levels):
            target.write(
                [(n, name) for n, name in level.store.sources() if n > below.mark.source],
                list(level.store.marks(level.mark)),
                list(level.store.rows(level.floor)),
                (below.floor.source, below.floor.characters),
                below.mark,
                level.store.all_regions((below.mark.source, below.mark.characters), level.mark),
            )
        if target is first:
            return
        if first is self._store and first.path is None and not self._shared:
            self._store, self._home = target.share(self), path
            if not first.is_shared(self):
                first.close()
        else:
            target.close()

    def find(
        self,
        at: str,
        question: str,
        earlier: Sequence[str],
        most: int,
        tokens: int,
        count: Callable[[str], int],
    ) -> list[Passage]:
        """The passages up to ``at`` that fit a question best; see ``KeptText``."""
        if not at:
            return []
        self._flush()
        found = [
            passage
            for level in self._levels(at)
            for passage in search(
                level.store, level.floor, question, earlier, most, tokens, count, self._like
            )
        ]
        best: list[Passage] = []
        for passage in sorted(found, key=lambda passage: -passage.score):
            if len(best) < most and sum(p.tokens for p in best) + passage.tokens <= tokens:
                best.append(passage)
        return best

    def known(self, at: str, question: str) -> float:
        """Share of the words of a question that the text up to a digest has."""
        self._flush()
        shares = [known(level.store, level.floor, question) for level in self._levels(at)]
        return max(shares, default=0.0)

    def beginning(self, at: str, characters: int) -> str:
        """The first characters of the text up to a digest."""
        found = ""
        with closing(self.rows(at)) as rows:
            while len(found) < characters and (row := next(rows, None)):
                found += row.text
        return found[:characters]

    def sources(self, at: str) -> list[tuple[int, str]]:
        """Numbers and names of the sources up to a digest."""
        self._flush()
        found: dict[int, str] = {}
        for level in self._levels(at) if at else []:
            found |= {n: name for n, name in level.store.sources() if n <= level.mark.source}
        return list(found.items())

    def rows(self, at: str) -> Generator[Row, None, None]:
        """All passages up to a digest, in order."""
        self._flush()
        for level in self._levels(at) if at else []:
            yield from level.store.rows(level.floor)

    # Inside ------------------------------------------------------------------------------

    def _own(self, at: str) -> Store:
        """The store, this session's alone and standing where the session stands."""
        if self._store is None:
            if at:
                raise _elsewhere()
            self._store = Store.create(self._home).share(self)
        elif self._shared or at != self._head.digest:
            self._flush()
            *below, level = self._levels(at)
            if level.store is not self._store:
                self._store, self._shared = level.store, True
            self._below = below
            if not self._shared:  # what it goes back from, a fork may still need
                self._store = self._store.own(self)
            self._go_to(level.mark)
            if self._shared:
                self._begin_on_top(level.mark)
        return self._store

    def _begin_on_top(self, mark: Mark) -> None:
        """Go on in a temporary store of this session's own, on top of what another one has.

        It begins with the passages of the other that are not certain yet.
        """
        assert self._store is not None
        source, start = self._tail
        floor = dataclasses.replace(mark, source=source, characters=start)
        self._below.append(_Level(self._store, mark, floor))
        if source:
            self._names.append((source, self._store.source(source)))
            standing = self._store.region(source, start)
            if standing:
                self._regions.append(dataclasses.replace(standing, start=start))
            self._regions += self._store.regions(source, start + 1, mark.characters)
        self._store = Store.create(None, self._store.identity).share(self)
        self._shared, self._base = False, Mark()

    def _levels(self, at: str) -> list[_Level]:
        """The stores that hold the text up to a digest, the lowest first.

        Raises:
            PassagesError: it is not here.
        """
        below = list(self._below)
        store = self._store
        while store is not None:
            mark = store.mark(at) if at or not below else None
            if mark is not None:
                return [*below, _Level(store, mark, mark)]
            store = below.pop().store if below else None
        raise _elsewhere()

    def _go_to(self, mark: Mark) -> None:
        """Take up the text where the session stands; what the store has beyond is cut off later.

        The passages that more text could have cut otherwise are opened again.
        """
        assert self._store is not None
        self._head = self._base = mark
        least = max(0, mark.characters - LOOK + 1)
        rows = list(self._store.rows(mark, mark.source, least))
        first = rows[0] if rows else Row(mark.source, 0, 1, 0, "")
        self._cutter = Cutter(first.start, first.line)
        if self._cutter.push("".join(row.text for row in rows)):
            raise _elsewhere()
        self._spans = list(self._store.marks(mark, mark.source, first.start))
        self._tail = (mark.source, first.start)

    def _flush(self) -> None:
        """Write what is held back."""
        if not self._marks or self._store is None:
            return
        rows = [*self._rows, *self._placed(self._cutter.rest())]
        self._store.write(self._names, self._marks, rows, self._tail, self._base, self._regions)
        self._base, self._tail = self._head, (self._head.source, self._cutter.start)
        self._names, self._marks, self._rows, self._regions, self._held = [], [], [], [], 0

    def _end_of(self, name: str, end: int) -> tuple[int, int]:
        """Characters and line at which an earlier reading of a source ended, to go on from there.

        Args:
            name: of the source.
            end: bytes of it that were read. Where nothing is known of them, the count begins anew.
        """
        mark = None
        if end and self._store is not None:
            self._flush()
            mark = self._store.end_of(name, end, self._head)
        if mark is None or self._store is None:
            return 0, 1
        *_, last = self._store.rows(mark, mark.source, max(0, mark.characters - LOOK))
        return mark.characters, last.line + last.text.count("\n")

    def _placed(self, cuts: Sequence[Cut]) -> list[Row]:
        """Passages of the source that is being read, with their token offsets."""
        rows = []
        for cut in cuts:
            span = next(span for span in self._spans if span.characters > cut.start)
            token = token_at(span, cut.start)
            rows.append(Row(self._head.source, cut.start, cut.line, token, cut.text))
        return rows

    def _regions_of(self, segment: Segment, mark: Mark) -> list[Region]:
        """The pages and chapters of a segment, if all tables below this text have them."""
        assert self._store is not None
        if not all(store.has_regions for store in [self._store, *(b.store for b in self._below)]):
            return []
        return [
            Region(mark.source, mark.start + place.at, place.page, place.chapter)
            for place in segment.landmarks
            if place.at < len(segment.text)
        ]

    def _name(self, source: int) -> str:
        """Name of a source, written or not."""
        for number, name in self._names:
            if number == source:
                return name
        return self._store.source(source) if self._store else ""


@dataclass(frozen=True, slots=True)
class _Level:
    """A store that another one goes on from, or the last of them.

    Args:
        store: its tables.
        mark: up to where it counts.
        floor: up to where its passages count; the next store has those behind it.
    """

    store: Store
    mark: Mark
    floor: Mark


def _elsewhere() -> PassagesError:
    return PassagesError("The text that this session has read is not here.", _REMEDY)
