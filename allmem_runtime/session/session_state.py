"""A state that can be forked, saved, kept and taken back; what it reads and says is elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from allmem_runtime.arguments import as_path, check_kind, refused
from allmem_runtime.engine.buffers import DeviceTensors
from allmem_runtime.errors import AllMemError, PassagesBusyError, SessionStateError, UsageError
from allmem_runtime.files import snapshot
from allmem_runtime.generation.sampling import MAX_SEED
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.cursor import Cursor
from allmem_runtime.session.guard import Guard
from allmem_runtime.session.kept_text import KeptText
from allmem_runtime.session.prompts import Exchange
from allmem_runtime.state import Place, Turn


class SessionState:
    """The life of a session.

    Args:
        model: whose state it is.
        undo: keep a copy of the state from before each exchange.

    Attributes:
        text_failure: why the text that was read is not kept any more, or cannot be used; empty
            while there is nothing to complain about. The state is sound all the same.
        text_busy: whether that text may be sound and just cannot be used now; reading on without
            it would give it up for good.
    """

    def __init__(self, model: LoadedModel, *, undo: bool = True) -> None:
        self.model = model
        self._undo = undo
        self._guard = Guard()
        self._cursor = Cursor(
            model.engine,
            model.manifest,
            Place(seed=_new_seed()),
            self._guard.lock,
            model.piece,
        )
        self._checkpoint: _Copy | None = None
        self._before: _Copy | None = None  # the state before the last exchange
        self._earlier: tuple[Exchange, ...] = ()  # the last ones; they go back with the state
        self._text: KeptText | None = None
        self.text_failure = ""
        self.text_busy = False

    @classmethod
    def opened(cls, model: LoadedModel, path: Path, *, undo: bool = True) -> Self:
        """A session from a file; ``Model.open`` is the public way.

        Raises:
            SessionFileError: the file is missing, damaged or of another model.
        """
        state = model.manifest.state
        with snapshot.open_saved(path) as (header, file):
            header.check(_owner(model), state)
            place = header.place(model.manifest.backbone.vocab_size)
            session = cls(model, undo=undo)
            snapshot.read_tensors(header, file, state, session._cursor.tensors)
        session._cursor.place = place
        return session

    @property
    def position(self) -> int:
        """Tokens fed since the beginning."""
        return self._cursor.place.position

    @property
    def pending(self) -> int:
        """Tokens that wait to be fed."""
        return len(self._cursor.place.pending)

    @property
    def piece(self) -> int:
        """Most tokens fed at once; another number changes speed, and results by rounding alone."""
        return self._cursor.piece

    @piece.setter
    def piece(self, tokens: int) -> None:
        most = self.model.longest_piece
        whole = hasattr(tokens, "__index__") and not isinstance(tokens, bool)
        if not whole or not 1 <= tokens <= most:
            raise UsageError(
                f"A piece is to have {tokens!r} tokens.", f"Pieces of this model have 1 to {most}."
            )
        self._cursor.piece = tokens

    def fork(self, *, undo: bool = False) -> Self:
        """An independent session in the same state; any thread may call this at any time."""
        other = type(self)(self.model, undo=undo)
        with self._guard.lock:
            self._cursor.check()
            other._cursor.piece = self._cursor.piece
            other._cursor.restore(self._cursor.tensors, self._cursor.place)
            other._follow(self)
            return other

    def save(self, path: str | Path) -> None:
        """Write the session to a file, atomically.

        The file holds no text but ``unread`` and the instruction that opened the conversation, and
        what was read can partly be inferred from it: keep it as private as the document.

        Raises:
            UsageError: path is no path.
            SessionStateError: the session failed or is not finite; nothing was written.
            StorageError: writing failed; an older file is unharmed.
        """
        path = as_path("path", path)
        with self._guard.lock:
            cursor = self._cursor
            cursor.check()
            self._save_text(path)
            cursor.place.parent = snapshot.save(
                path,
                _owner(self.model),
                self.model.manifest.state,
                cursor.tensors,
                cursor.place,
            )

    def keep_text(self, text: KeptText | None) -> None:
        """Have the text of what is read kept, so that ``answer`` finds passages in it.

        Args:
            text: who keeps it; None keeps none any more.
        """
        if text is not None and not hasattr(text, "take"):
            raise refused("text", text, "Model.session(text=True) has the text kept.")
        self._text, self.text_failure, self.text_busy = text, "", False

    @property
    def text(self) -> KeptText | None:
        """Who keeps the text of what is read; None if nobody does."""
        return self._text

    @property
    def text_digest(self) -> str:
        """Digest of the text that was kept of what was read; empty if none was."""
        return self._cursor.place.text

    def lose_text(self, error: AllMemError) -> None:
        """Go on without the text, and say so in ``text_failure``."""
        check_kind("error", error, AllMemError, "Give the error that made it unusable.")
        self._text, self.text_failure = None, str(error)
        self.text_busy = isinstance(error, PassagesBusyError)

    def _save_text(self, path: Path) -> None:
        """Have the text on disk before the session that names it; both stand at one token."""
        if self._text is None:
            return
        try:
            self._text.save(self._cursor.place.text, path)
        except AllMemError as error:
            self._cursor.place.text = ""
            self.lose_text(error)

    def _follow(self, other: SessionState) -> None:
        """What a fork has of its session besides the state."""
        self._earlier = other._earlier
        self.text_failure, self.text_busy = other.text_failure, other.text_busy
        if other._text is not None:
            try:
                self._text = other._text.fork()
            except AllMemError as error:
                self.lose_text(error)

    def checkpoint(self) -> None:
        """Keep a copy of the state in memory, to which ``rollback`` returns."""
        with self._guard.lock:
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
        with self._guard.operation("the session is being reset"), self._guard.lock:
            self._cursor.blank(_new_seed())
            self._checkpoint = self._before = None
            self._earlier = ()
            self._forget()

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
            "device_reason": self.model.device.why,
            "operators": self.model.operators,
            "cuda_graph": self.model.engine.cuda_graph,
            "notices": list(self.model.engine.notices),
            "position": place.position,
            "pending": len(place.pending),
            "turn": place.turn,
            "source_offset": place.source.offset,
            "source_finished": place.source.finished,
            "state_bytes": state,
            "memory_bytes": self._cursor.nbytes + copies * state,
            "seed": place.seed,
            "parent": place.parent,
            "text_digest": place.text,
            "text_failure": self.text_failure,
            "failure": self._cursor.failure,
        }

    @contextmanager
    def _operation(self, what: str) -> Iterator[None]:
        """The right to move the state on; the state must be sound, and no stop is asked for."""
        with self._guard.operation(what):
            self._cursor.stop.clear()
            self._cursor.check()
            yield

    def _take(self, tokens: Sequence[int], turn: Turn, system: str | None = None) -> None:
        """Queue tokens that belong to a turn; whoever forks or saves finds both or neither."""
        with self._guard.lock:
            self._cursor.queue(tokens)
            self._cursor.place.system = system or self._cursor.place.system
            self._cursor.place.lead = ""  # it is among the tokens
            self._cursor.place.turn = turn

    def _forget(self) -> None:
        """The state is another one now: drop what was said of the last call."""

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
        return _Copy(tensors, self._cursor.place.copy(), self._earlier)

    def _return_to(self, copy: _Copy) -> None:
        with self._guard.operation("the session is going back"), self._guard.lock:
            self._cursor.restore(copy.tensors, copy.place)
            self._earlier = copy.earlier
            self._forget()


class _Copy:
    """A state kept in memory."""

    def __init__(self, tensors: DeviceTensors, place: Place, earlier: tuple[Exchange, ...]) -> None:
        self.tensors = tensors
        self.place = place
        self.earlier = earlier


def _new_seed() -> int:
    return secrets.randbelow(MAX_SEED)


def _owner(model: LoadedModel) -> snapshot.Owner:
    package, manifest = model.package, model.manifest
    return snapshot.Owner(
        name=manifest.name,
        model=package.digest,
        tokenizer=package.tokenizer_digest,
        operators=manifest.operators,
        vocab_size=manifest.backbone.vocab_size,
    )
