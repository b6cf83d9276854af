"""A session: a state that reads and answers. One call at a time."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from allmem_runtime.errors import AllMemError, UsageError
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.answer import Answer
from allmem_runtime.session.feeding import Feeding
from allmem_runtime.session.ingesting import ingest
from allmem_runtime.session.kept_text import Passage, Segment
from allmem_runtime.session.session_state import SessionState
from allmem_runtime.session.writing import FinishReason, write
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.state import Place
from allmem_runtime.text.blocks import Block, Blocks
from allmem_runtime.text.parts import After
from allmem_runtime.text.reading import Progress
from allmem_runtime.text.segments import Segment as TextSegment
from allmem_runtime.text.turns import Turns

DEFAULT_PASSAGES = 3
"""Most passages that are read again before a question."""

PASSAGES_SHARE = 1 / 3
"""Part of the window that they may take together."""


class Session(Feeding):
    """What one reader has in mind.

    Reading and answering are iterators: the work is done as they are consumed. While one is
    open, only ``save``, ``fork``, ``answer``, ``find_passages``, ``checkpoint``, ``info`` and
    ``cancel`` may be called, by any thread: what copies the state waits for the step that runs.
    Leaving a loop early is always allowed; tokens that wait to be fed then go first in the next
    call.

    Attributes:
        finish_reason: why the last answer ended: ``end`` (the model's own end token), ``stop``
            (a stop string), ``length``, ``cancelled``; empty if there was none, or it was left.
        passages: what was read again for the last answer of ``ask`` or ``stream``, in the order of
            ``Answer.passages``.
    """

    def __init__(self, model: LoadedModel, *, undo: bool = True) -> None:
        super().__init__(model, undo=undo)
        self.finish_reason: FinishReason = ""
        self.passages: tuple[Passage, ...] = ()
        self._turns = Turns(model.tokenizer, model.chat, model.manifest.begin_tokens)

        self._earlier: tuple[str, ...] = ()
        self._following: Answer | None = None

    def cancel(self) -> None:
        """End the running call at its next piece or token; any thread may call this."""
        super().cancel()
        if (answer := self._following) is not None:
            answer.cancel()

    def _forget(self) -> None:
        self.finish_reason = ""
        self.passages = ()
        self._earlier = ()

    def _follow(self, other: SessionState) -> None:
        super()._follow(other)
        if isinstance(other, Session):
            self._earlier = other._earlier

    # Reading -----------------------------------------------------------------------------

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

        Raises:
            UsageError: the source is of no known kind, or an argument does not fit.
            SourceError: the source cannot be read.
            SessionStateError: the session is busy or failed.
        """
        if system is not None and not document:
            raise UsageError(
                "Plain text takes no system text.", "Leave one of the two arguments out."
            )
        begun = SourceMark(name, location)
        return self._ingest(Blocks(source), document, system, new_source, mark, begun)

    def _ingest(
        self,
        blocks: Blocks,
        document: bool,
        system: str | None,
        new_source: bool,
        mark: SourceMark | None,
        begun: SourceMark,
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
                self._keep(Segment(called, text, first, end, at, tokens, begins=first_segment))
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
            place.turn = "document"
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

    # Answering ---------------------------------------------------------------------------

    def answer(
        self,
        question: str,
        *,
        passages: int = DEFAULT_PASSAGES,
        sampling: Sampling | None = None,
        system: str | None = None,
    ) -> Answer:
        """Answer a question on a fork that first reads again what fits it; nothing is changed.

        Passages are found where the text of what was read is kept; see ``keep_text``. Together
        they take a part of the window at most.

        Args:
            question: text of the user; nothing in it acts as a control token.
            passages: most that are read again; 0 asks the state alone.
            sampling: how to draw; the model's own way by default.
            system: instruction that opens the conversation.

        Raises:
            SessionStateError: the session is busy or failed. What ``stream`` raises is raised
                while the answer is iterated over.
        """
        return self._answer(question, self.find_passages(question, passages), sampling, system)

    def _answer(
        self,
        question: str,
        found: Sequence[Passage],
        sampling: Sampling | None,
        system: str | None,
    ) -> Answer:
        fork = self.fork()
        fork.keep_text(None)
        cancelled = threading.Event()

        def pieces() -> Generator[str, None, FinishReason]:
            opening = system
            for passage in reversed(found):  # the best stands right before the question
                if cancelled.is_set():
                    return "cancelled"
                for _ in fork.ingest(passage.text, system=opening, new_source=True):
                    if cancelled.is_set():
                        return "cancelled"
                opening = None
            for text in fork.stream(question, sampling=sampling, system=opening):
                yield text
                if cancelled.is_set():
                    fork.cancel()  # it may have come just before the writing began
            return fork.finish_reason

        def cancel() -> None:
            cancelled.set()
            fork.cancel()

        return Answer(question, found, pieces(), cancel, lambda: fork.position)

    def find_passages(self, question: str, most: int = DEFAULT_PASSAGES) -> list[Passage]:
        """The passages that fit a question, the best first; none where no text is kept.

        Where the text cannot be used, ``text_failure`` says why, and the state answers alone.

        Args:
            question: of the user.
            most: how many at most; together they take a part of the window.
        """
        if self._text is None or most < 1:
            return []
        encode = self.model.tokenizer.encode_text
        try:
            with self._guard.lock:
                return self._text.find(
                    self._cursor.place.text,
                    question,
                    self._earlier,
                    most,
                    int(self.model.manifest.window * PASSAGES_SHARE),
                    lambda text: len(encode(text)),
                )
        except AllMemError as error:
            self.lose_text(error)
            return []

    def ask(
        self,
        question: str,
        *,
        passages: int = 0,
        sampling: Sampling | None = None,
        system: str | None = None,
    ) -> str:
        """The whole answer to a question; see ``stream``."""
        return "".join(self.stream(question, passages=passages, sampling=sampling, system=system))

    def stream(
        self,
        question: str,
        *,
        passages: int = 0,
        sampling: Sampling | None = None,
        system: str | None = None,
    ) -> Iterator[str]:
        """Ask, and yield the answer as it is written.

        The question and its answer become part of what the session knows; passages do not.

        Args:
            question: text of the user; nothing in it acts as a control token.
            passages: most passages of the text that a fork reads again to answer, as ``answer``
                does; the session then reads the answer.
            sampling: how to draw; the model's own way by default.
            system: instruction that opens the conversation.

        Raises:
            UsageError: the system text comes too late, or the question is too long.
            SessionStateError: the session is busy, failed, or its logits are not finite.
        """
        self.passages = tuple(self.find_passages(question, passages))
        if self.passages:
            yield from self._stream_with_passages(question, sampling, system)
            return
        with self._operation("a question is being answered"):
            place = self._cursor.place
            tokens = self._turns.question(place.turn, question, system, place.lead)
            self._remember()
            self._take(tokens, "reply")
            parts: list[str] = []
            try:
                for text in self._write(sampling, self.model.chat.stop):
                    parts.append(text)
                    yield text
            finally:
                self._note(question, parts)

    def _stream_with_passages(
        self, question: str, sampling: Sampling | None, system: str | None
    ) -> Iterator[str]:
        """Yield the answer of a fork, and read question and answer, without passages."""
        answer = self._answer(question, self.passages, sampling, system)
        with self._operation("a question is being answered"):
            place = self._cursor.place
            tokens = self._turns.question(place.turn, question, system, place.lead)
            self.finish_reason = ""
            self._following = answer
            parts: list[str] = []
            try:
                for text in answer:
                    parts.append(text)
                    yield text
                self.finish_reason, self.passages = answer.finish_reason, answer.passages
            finally:
                self._following = None
                if parts or answer.finish_reason:
                    self._remember()
                    said = self._turns.answer("".join(parts))
                    self._take([*tokens, *said], "reply")
                    self._note(question, parts)
            for _ in self._cursor.feed():
                pass

    def _note(self, question: str, parts: Sequence[str]) -> None:
        """Remember an exchange for the questions after it, which may lean on it."""
        self._earlier = (*self._earlier[-1:], "\n".join([question, "".join(parts)]))

    def generate(self, text: str = "", *, sampling: Sampling | None = None) -> Iterator[str]:
        """Continue a text as it stands, outside any conversation.

        Args:
            text: fed first; may be empty if something was fed before.
            sampling: how to draw; the model's own way by default.

        Raises:
            UsageError: there is nothing to continue.
            SessionStateError: the session is busy, failed, or its logits are not finite.
        """
        with self._operation("text is being written"):
            place = self._cursor.place
            after = self._turns.behind(place.turn, [*place.recent, *place.pending])
            tokens = self.model.tokenizer.encode_text(place.lead + text, after)
            tokens = [*self._turns.raw(place.turn), *tokens]
            if not tokens and not place.pending:
                raise UsageError("There is no text to continue.", "Give at least one word.")
            self._remember()
            self._take(tokens, "raw" if place.turn == "start" else place.turn)
            yield from self._write(sampling, ())

    def _write(self, sampling: Sampling | None, stop: tuple[str, ...]) -> Iterator[str]:
        self.finish_reason = ""
        drawing = sampling or self.model.sampling
        self.finish_reason = yield from write(self._cursor, self.model.tokenizer, drawing, stop)
