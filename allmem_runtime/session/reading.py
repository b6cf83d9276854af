"""The reading of a session: sources, documents and where their reading stands."""

from __future__ import annotations

from collections.abc import Generator
from types import NoneType
from typing import Any

from allmem_runtime.arguments import check_kind, check_text
from allmem_runtime.errors import AllMemError, UsageError
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.feeding import Feeding
from allmem_runtime.session.ingesting import ingest
from allmem_runtime.session.kept_text import Segment
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.state import Place
from allmem_runtime.text.blocks import Block, Blocks
from allmem_runtime.text.parts import After
from allmem_runtime.text.places import Landmarks, landmarks_of
from allmem_runtime.text.reading import Progress
from allmem_runtime.text.segments import Segment as TextSegment
from allmem_runtime.text.turns import Turns


class Reading(Feeding):
    """A state that reads sources, one after the other, as documents or as plain text."""

    def __init__(self, model: LoadedModel, *, undo: bool = True) -> None:
        super().__init__(model, undo=undo)
        self._turns = Turns(model.tokenizer, model.chat, model.manifest.begin_tokens)

    def ingest(
        self,
        source: Any,
        *,
        document: bool = True,
        system: str | None = None,
        new_source: bool = False,
        mark: SourceMark | None = None,
        name: str = "",
        location: str = "",
        landmarks: Landmarks | None = None,
    ) -> Generator[Progress, None, None]:
        """Read a source to its end, yielding after each piece.

        A source that an earlier call did not read to its end is continued: give the bytes from
        ``source_offset`` on.

        Args:
            source: bytes, a text (never a path), an open file, token ids, or any iterator of
                these, cut anywhere.
            document: read it as a document in the user's turn; False reads it as plain text
                outside any conversation.
            system: instruction that opens the conversation.
            new_source: this is another source, even though the last one was not finished.
            mark: one of ``sources``, to go on behind what was read of it: give the bytes from its
                offset on. Its running digest, taken anew after the session was opened from a
                file, goes on with the reading, so that what was read by then can be recognized
                too; it may still grow until the first bytes come.
            name: what to call a new source, where a place in it is told and in ``sources``.
            location: what names the path of a new source, to recognize it by.
            landmarks: its pages and chapters, for the places in it; None where it has none.

        Raises:
            UsageError: the source is of no known kind, or an argument does not fit.
            SourceError: the source cannot be read.
            SessionStateError: the session is busy or failed.
        """
        check_text("name", name)
        check_text("location", location)
        check_system(system)
        check_kind("mark", mark, (SourceMark, NoneType), "Give one of Session.sources.")
        if system is not None and not document:
            raise UsageError(
                "Plain text takes no system text.", "Leave one of the two arguments out."
            )
        begun = SourceMark(name, location)
        return self._ingest(Blocks(source), document, system, new_source, mark, begun, landmarks)

    def _ingest(
        self,
        blocks: Blocks,
        document: bool,
        system: str | None,
        new_source: bool,
        mark: SourceMark | None,
        begun: SourceMark,
        landmarks: Landmarks | None,
    ) -> Generator[Progress, None, None]:
        with self._operation("a source is being read"):
            blocks.begin()  # a source that cannot be read changes nothing
            place = self._cursor.place
            with self._guard.lock:
                if mark is None and not new_source and not place.source.finished:
                    mark = place.source
                first_segment = self._begin(place, document, system, mark, begun)
            called = place.source.name or begun.name

            def taken(segment: TextSegment, first: int, tokens: int, before: int) -> None:
                nonlocal first_segment
                at = place.position + len(place.pending) + before
                text, end = segment.text, segment.end
                places = landmarks_of(text, first, end, landmarks)
                self._keep(Segment(called, text, first, end, at, tokens, first_segment, places))
                first_segment = False

            yield from ingest(
                self._cursor,
                self.model.tokenizer,
                blocks,
                self._guard.lock,
                self._leave,
                taken,
                self._lead,
            )

    def _lead(self) -> tuple[str, After]:
        """Text that waits to be encoded together with what follows, and what stands before it."""
        place = self._cursor.place
        lead, place.lead = place.lead, ""
        return lead, self._turns.behind(place.turn, [*place.recent, *place.pending])

    def _begin(
        self,
        place: Place,
        document: bool,
        system: str | None,
        mark: SourceMark | None,
        begun: SourceMark,
    ) -> bool:
        """Stand before a source, or where its reading stopped; whether another came before it."""
        if mark is None:
            other = place.begin_source(begun.name, begun.location)
        else:
            other = place.go_on(mark.copy())
        if document:
            before, lead = self._turns.open_document(place.turn, not other, system)
            place.turn, place.system = "document", system or place.system
        else:
            before, lead = self._turns.raw(place.turn), ""
            place.turn = "raw" if place.turn == "start" else place.turn
        place.source.finished = False
        self._leave(b"")
        self._cursor.queue(before)
        if lead:
            self._cursor.queue(self.model.tokenizer.encode_text(*self._lead()))
            place.lead = lead
        return other

    def _keep(self, segment: Segment) -> None:
        """Have the text of a segment kept, if anybody keeps it."""
        place, text = self._cursor.place, self._text
        at, place.text = place.text, ""
        if text is not None:
            try:
                place.text = text.take(at, segment)
            except AllMemError as error:
                self.lose_text(error)

    def _leave(self, unread: Block) -> None:
        self._cursor.place.unread = unread

    @property
    def source_offset(self) -> int:
        """Bytes of the current source that were encoded; reading goes on there."""
        return self._cursor.place.source.offset

    @property
    def source(self) -> SourceMark:
        """How far the current source was read, and what it can be recognized by."""
        return self._cursor.place.source.copy()

    @property
    def unread(self) -> Block:
        """What was pulled from the current source and is not read yet.

        While a reading is open, this is what waits for the end of its segment; once it was
        stopped, all that it had pulled. A source that cannot be opened again, such as a pipe, is
        continued with this first. It is saved with the session and goes to its forks.
        """
        return self._cursor.place.unread

    @property
    def sources(self) -> tuple[SourceMark, ...]:
        """All sources that were read, how far, and what they can be recognized by.

        The current one is last; the others come in the order in which each was last read.
        """
        return tuple(mark.copy() for mark in self._cursor.place.sources)

    def drop_unread(self) -> None:
        """Forget ``unread``, because the source will be given again from ``source_offset`` on."""
        with self._guard.lock:
            self._leave(b"")


def check_system(system: str | None) -> None:
    """Refuse what can be no instruction.

    Raises:
        UsageError: it is no text, and not None.
    """
    check_kind("system", system, (str, NoneType), "Give a text, or None.")
