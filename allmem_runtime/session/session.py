"""A session: a state that reads and answers. One thread at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np

from allmem_runtime.engine.buffers import Logits
from allmem_runtime.errors import SessionStateError, UsageError
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.ingesting import ingest
from allmem_runtime.session.session_state import SessionState
from allmem_runtime.session.writing import FinishReason, write
from allmem_runtime.source_mark import RunningDigest, SourceMark
from allmem_runtime.text.blocks import Block, Blocks
from allmem_runtime.text.reading import Progress
from allmem_runtime.text.turns import Turns


class Session(SessionState):
    """What one reader has in mind.

    Reading and answering are iterators: the work is done as they are consumed. While one is
    open, only ``save``, ``fork``, ``checkpoint``, ``info`` and ``cancel`` may be called. Leaving
    a loop early is always allowed; tokens that wait to be fed then go first in the next call.

    Attributes:
        finish_reason: why the last answer ended: ``end`` (the model's own end token), ``stop``
            (a stop string), ``length``, ``cancelled``; empty if there was none, or it was left.
    """

    def __init__(self, model: LoadedModel, *, undo: bool = True) -> None:
        super().__init__(model, undo=undo)
        self.finish_reason: FinishReason = ""
        self._turns = Turns(model.tokenizer, model.chat, model.manifest.begin_tokens)

    def _forget(self) -> None:
        self.finish_reason = ""

    # Reading -----------------------------------------------------------------------------

    def ingest(
        self,
        source: Any,
        *,
        document: bool = True,
        system: str | None = None,
        new_source: bool = False,
        read_before: RunningDigest | None = None,
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
            read_before: SHA-256 of the source up to ``source_offset``, taken anew after the session
                was opened from a file; goes on with the reading, so that what was read by then
                can be recognized too. It may still grow until the first bytes come.

        Raises:
            UsageError: the source is of no known kind, or an argument does not fit.
            SourceError: the source cannot be read.
            SessionStateError: the session is busy or failed.
        """
        if system is not None and not document:
            raise UsageError(
                "Plain text takes no system text.", "Leave one of the two arguments out."
            )
        return self._ingest(Blocks(source), document, system, new_source, read_before)

    def _ingest(
        self,
        blocks: Blocks,
        document: bool,
        system: str | None,
        new_source: bool,
        read_before: RunningDigest | None,
    ) -> Generator[Progress, None, None]:
        with self._operation("a source is being read"):
            blocks.begin()  # a source that cannot be read changes nothing
            place = self._cursor.place
            fresh = new_source or place.source.finished
            if document:
                before = self._turns.open_document(place.turn, fresh, system)
                place.turn = "document"
            else:
                before = self._turns.raw(place.turn)
                place.turn = "raw" if place.turn == "start" else place.turn
            if fresh:
                place.source = SourceMark()
            elif read_before is not None:
                place.source.running = read_before
            place.source.finished = False
            self._leave(b"")
            self._cursor.queue(before)
            yield from ingest(self._cursor, self.model.tokenizer, blocks, self._leave)

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

    def drop_unread(self) -> None:
        """Forget ``unread``, because the source will be given again from ``source_offset`` on."""
        with self._guard.moment():
            self._leave(b"")

    # Answering ---------------------------------------------------------------------------

    def ask(
        self, question: str, *, sampling: Sampling | None = None, system: str | None = None
    ) -> str:
        """The whole answer to a question; see ``stream``."""
        return "".join(self.stream(question, sampling=sampling, system=system))

    def stream(
        self, question: str, *, sampling: Sampling | None = None, system: str | None = None
    ) -> Iterator[str]:
        """Ask, and yield the answer as it is written.

        Args:
            question: text of the user; nothing in it acts as a control token.
            sampling: how to draw; the model's own way by default.
            system: instruction that opens the conversation.

        Raises:
            UsageError: the system text comes too late, or the question is too long.
            SessionStateError: the session is busy, failed, or its logits are not finite.
        """
        with self._operation("a question is being answered"):
            place = self._cursor.place
            tokens = self._turns.question(place.turn, question, system)
            self._remember()
            self._cursor.queue(tokens)
            place.turn = "reply"
            yield from self._write(sampling, self.model.chat.stop)

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
            tokens = [*self._turns.raw(place.turn), *self.model.tokenizer.encode_text(text)]
            if not tokens and not place.pending:
                raise UsageError("There is no text to continue.", "Give at least one word.")
            self._remember()
            self._cursor.queue(tokens)
            place.turn = "raw" if place.turn == "start" else place.turn
            yield from self._write(sampling, ())

    def _write(self, sampling: Sampling | None, stop: tuple[str, ...]) -> Iterator[str]:
        self.finish_reason = ""
        drawing = sampling or self.model.sampling
        self.finish_reason = yield from write(self._cursor, self.model.tokenizer, drawing, stop)

    # Low level ---------------------------------------------------------------------------

    @overload
    def feed(self, ids: Sequence[int], logits: Literal["none"] = "none") -> None: ...

    @overload
    def feed(self, ids: Sequence[int], logits: Literal["last", "all"]) -> Logits: ...

    def feed(
        self, ids: Sequence[int], logits: Literal["none", "last", "all"] = "none"
    ) -> Logits | None:
        """Feed tokens as they are, with nothing around them.

        Args:
            ids: token ids.
            logits: of no token, the last, or all of them.

        Returns:
            None, [vocab_size], or [tokens, vocab_size].

        Raises:
            UsageError: an id is no token of this model, or logits of no tokens are wanted.
            SessionStateError: the session is busy or failed, or the call was cancelled.
        """
        if logits not in ("none", "last", "all"):
            raise UsageError(f"logits is {logits!r}.", "Use none, last or all.")
        if logits != "none" and not len(ids):
            raise UsageError("There is no token to give logits of.", "Feed at least one.")
        if logits == "all":
            rows = [np.zeros((0, self.model.manifest.backbone.vocab_size), np.float32)]
            return np.concatenate([*rows, *self.logits_all(ids)])
        with self._operation("tokens are being fed"):
            self._begin_raw(ids)
            found: Logits | None = None
            for found in self._cursor.feed(last=logits == "last"):  # noqa: B007
                pass
            if logits == "none":
                return None
            if found is None or not len(found):
                raise SessionStateError(
                    "The call was cancelled before its last token.", "Feed nothing to go on."
                )
            row: Logits = found[-1].copy()
            return row

    def logits_all(self, ids: Sequence[int]) -> Iterator[Logits]:
        """Feed tokens and yield the logits of each, a piece at a time, for evaluation.

        Yields:
            [tokens of the piece, vocab_size].
        """
        with self._operation("tokens are being fed"):
            cursor = self._cursor
            for _ in cursor.feed():
                pass
            self._begin_raw(ids)
            while (count := cursor.ready()) and not cursor.stop.is_set():
                yield cursor.step(count, range(count)).copy()

    def _begin_raw(self, ids: Sequence[int]) -> None:
        self._cursor.queue(ids)
        if self._cursor.place.turn == "start" and len(ids):
            self._cursor.place.turn = "raw"
