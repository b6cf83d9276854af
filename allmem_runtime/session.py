"""A session: one state that reads, answers, forks and is saved. One thread at a time."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from allmem_runtime import snapshot
from allmem_runtime.cursor import Cursor
from allmem_runtime.errors import SessionStateError, UsageError
from allmem_runtime.guard import Guard
from allmem_runtime.ingesting import ingest
from allmem_runtime.reading import Block, Blocks, Progress
from allmem_runtime.sampling import MAX_SEED, Sampling
from allmem_runtime.state import Place, SourceMark
from allmem_runtime.step import DeviceTensors, Logits
from allmem_runtime.turns import Turns
from allmem_runtime.writing import FinishReason, write

if TYPE_CHECKING:
    from allmem_runtime.model import Model


class Session:
    """What one reader has in mind.

    Reading and answering are iterators: the work is done as they are consumed. While one is
    open, only ``save``, ``fork``, ``checkpoint``, ``info`` and ``cancel`` may be called. Leaving
    a loop early is always allowed; tokens that wait to be fed then go first in the next call.

    Attributes:
        finish_reason: why the last answer ended: ``end`` (the model's own end token), ``stop``
            (a stop string), ``length``, ``cancelled``; empty if there was none, or it was left.
    """

    def __init__(self, model: Model, *, undo: bool = True) -> None:
        self.model = model
        self.finish_reason: FinishReason = ""
        self._undo = undo
        self._guard = Guard()
        self._cursor = Cursor(
            model.engine, model.manifest, Place(seed=_new_seed()), self._guard.lock
        )
        self._turns = Turns(model.tokenizer, model.chat, model.manifest.begin_tokens)
        self._unread: Block = b""
        self._checkpoint: _Copy | None = None
        self._before: _Copy | None = None  # the state before the last exchange

    @classmethod
    def opened(cls, model: Model, path: Path, *, undo: bool = True) -> Session:
        """A session from a file; ``Model.open`` is the public way.

        Raises:
            SessionFileError: the file is missing, damaged or of another model.
        """
        header = snapshot.read_header(path)
        header.check(_owner(model), model.manifest.state)
        place = header.place(model.manifest.backbone.vocab_size)
        session = cls(model, undo=undo)
        snapshot.read_tensors(header, model.manifest.state, session._cursor.tensors)
        session._cursor.place = place
        return session

    # Reading -----------------------------------------------------------------------------

    def ingest(
        self,
        source: Any,
        *,
        document: bool = True,
        system: str | None = None,
        new_source: bool = False,
    ) -> Iterator[Progress]:
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

        Raises:
            UsageError: the source is of no known kind, or an argument does not fit.
            SourceError: the source cannot be read.
            SessionStateError: the session is busy or failed.
        """
        if system is not None and not document:
            raise UsageError(
                "Plain text takes no system text.", "Leave one of the two arguments out."
            )
        return self._ingest(Blocks(source), document, system, new_source)

    def _ingest(
        self, blocks: Blocks, document: bool, system: str | None, new_source: bool
    ) -> Iterator[Progress]:
        with self._operation("a source is being read"):
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
            place.source.finished = False
            self._leave(b"")
            self._cursor.queue(before)
            yield from ingest(self._cursor, self.model.tokenizer, blocks, self._leave)

    def _leave(self, unread: Block) -> None:
        self._unread = unread

    @property
    def source_offset(self) -> int:
        """Bytes of the current source that were encoded; reading goes on there."""
        return self._cursor.place.source.offset

    @property
    def source(self) -> SourceMark:
        """How far the current source was read, and what it can be recognised by."""
        return dataclasses.replace(self._cursor.place.source)

    @property
    def unread(self) -> Block:
        """What the last reading pulled from its source and left alone because it was stopped.

        A source that cannot be opened again, such as a pipe, is continued with this first.
        """
        return self._unread

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
        self.finish_reason = yield from write(self._cursor, self.model, drawing, stop)

    # Low level ---------------------------------------------------------------------------

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

    # Life --------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Tokens fed since the beginning."""
        return self._cursor.place.position

    @property
    def pending(self) -> int:
        """Tokens that wait to be fed."""
        return len(self._cursor.place.pending)

    def fork(self, *, undo: bool = False) -> Session:
        """An independent session in the same state."""
        with self._guard.moment():
            self._cursor.check()
            other = Session(self.model, undo=undo)
            other._cursor.restore(self._cursor.tensors, self._cursor.place)
            return other

    def save(self, path: str | Path) -> None:
        """Write the session to a file, atomically.

        The file holds no text, but what was read can partly be inferred from it: keep it as
        private as the document.

        Raises:
            SessionStateError: the session is busy, failed or not finite; nothing was written.
            StorageError: writing failed; an older file is unharmed.
        """
        with self._guard.moment():
            cursor = self._cursor
            cursor.check()
            cursor.place.parent = snapshot.save(
                Path(path),
                _owner(self.model),
                self.model.manifest.state,
                cursor.tensors,
                cursor.place,
            )

    def checkpoint(self) -> None:
        """Keep a copy of the state in memory, to which ``rollback`` returns."""
        with self._guard.moment():
            self._cursor.check()
            self._checkpoint = self._copy(self._checkpoint)

    def rollback(self) -> None:
        """Go back to the last checkpoint, or, without one, to before the last question.

        Raises:
            SessionStateError: there is neither.
        """
        copy = self._checkpoint or self._before
        if copy is None:
            raise SessionStateError(
                "There is no checkpoint to go back to.", "Start again with reset(), or open a file."
            )
        self._return_to(copy)

    def undo(self) -> None:
        """Take the last question and its answer back.

        Raises:
            SessionStateError: there is none, or the session was made without ``undo``.
        """
        if self._before is None:
            raise SessionStateError(
                "There is no exchange to take back.",
                "" if self._undo else "Make the session with undo=True.",
            )
        self._return_to(self._before)
        self._before = None

    def reset(self) -> None:
        """Forget everything and begin again."""
        with self._guard.operation("the session is being reset"):
            self._cursor.blank(_new_seed())
            self._checkpoint = self._before = None
            self._unread = b""
            self.finish_reason = ""

    def cancel(self) -> None:
        """End the running call at its next piece or token; any thread may call this."""
        self._cursor.stop.set()

    def info(self) -> dict[str, Any]:
        """What there is to know of this session, as plain values."""
        place, state = self._cursor.place, self.model.state_bytes
        copies = sum(copy is not None for copy in (self._checkpoint, self._before))
        return {
            "model": self.model.name,
            "device": str(self.model.device),
            "operators": self.model.operators,
            "position": place.position,
            "pending": len(place.pending),
            "turn": place.turn,
            "source_offset": place.source.offset,
            "source_finished": place.source.finished,
            "state_bytes": state,
            "memory_bytes": self._cursor.nbytes + copies * state,
            "seed": place.seed,
            "parent": place.parent,
            "failure": self._cursor.failure,
        }

    @contextmanager
    def _operation(self, what: str) -> Iterator[None]:
        """The right to move the state on; the state must be sound, and no stop is asked for."""
        with self._guard.operation(what):
            self._cursor.stop.clear()
            self._cursor.check()
            yield

    def _remember(self) -> None:
        """Keep the state from before an exchange."""
        if self._undo:
            with self._guard.lock:
                self._before = self._copy(self._before)

    def _copy(self, old: _Copy | None) -> _Copy:
        """A copy of the state; the memory of an old one is used again."""
        tensors = (
            old.tensors if old else DeviceTensors(self.model.manifest.state, self.model.device)
        )
        tensors.copy_from(self._cursor.tensors)
        return _Copy(tensors, self._cursor.place.copy())

    def _return_to(self, copy: _Copy) -> None:
        with self._guard.operation("the session is going back"):
            self._cursor.restore(copy.tensors, copy.place)
            self.finish_reason = ""
            self._unread = b""


class _Copy:
    """A state kept in memory."""

    def __init__(self, tensors: DeviceTensors, place: Place) -> None:
        self.tensors = tensors
        self.place = place


def _new_seed() -> int:
    return secrets.randbelow(MAX_SEED)


def _owner(model: Model) -> snapshot.Owner:
    package, manifest = model.package, model.manifest
    return snapshot.Owner(
        name=manifest.name,
        model=package.digest,
        tokenizer=package.tokenizer_digest,
        operators=manifest.operators,
        vocab_size=manifest.backbone.vocab_size,
    )
