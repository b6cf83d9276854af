"""What a session is made of: tensors of fixed size, and its place in the text.

It knows neither where the tensors lie nor how they are computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.source_mark import SourceMark
from allmem_runtime.spec import StateSpec, past_name

RECENT_TOKENS = 64
"""Tokens remembered by id, for the repetition penalty."""

MAX_LEAD = 64
"""Most characters that wait to be encoded together with what follows."""

Turn = Literal["start", "raw", "document", "reply"]
"""What the last token fed belongs to: nothing yet, text outside any conversation, an open turn of
the user that holds a document, or an answer."""
TURNS: tuple[Turn, ...] = ("start", "raw", "document", "reply")


class Tensors(Protocol):
    """One array per state tensor, on some device, by the name of its graph input."""

    def read(self, name: str) -> NDArray[Any]:
        """The tensor as a host array; valid until the next step."""

    def write(self, name: str, values: NDArray[Any]) -> None:
        """Overwrite the tensor."""

    def copy_from(self, other: Tensors) -> None:
        """Overwrite all tensors with those of another state of the same model."""


@dataclass(slots=True)
class Place:
    """Where a session stands in its text: everything it keeps besides the tensors.

    Args:
        position: tokens fed since the beginning.
        turn: what the last token belongs to.
        pending: tokens that belong to the text but were not fed yet; they go first.
        lead: spaces and line ends behind those, to be encoded together with the text that follows.
        recent: the last tokens fed, at most ``RECENT_TOKENS``.
        seed: of the random numbers; with the position it fixes every draw.
        source: how far the current source was read.
        earlier: the sources that were read before it, in the order in which each was last read;
            to be treated as immutable.
        system: instruction that opened the conversation; empty if none did.
        unread: what was pulled from the current document and not read yet: text as bytes, or
            token ids; to be treated as immutable.
        text: digest of the text that was kept of what was read; empty if none was.
        parent: digest of the session file this state came from, or an empty text.
    """

    position: int = 0
    turn: Turn = "start"
    pending: list[int] = field(default_factory=list)
    lead: str = ""
    recent: list[int] = field(default_factory=list)
    seed: int = 0
    source: SourceMark = field(default_factory=SourceMark)
    earlier: tuple[SourceMark, ...] = ()
    system: str = ""
    unread: bytes | list[int] = b""
    text: str = ""
    parent: str = ""

    def copy(self) -> Place:
        """An independent copy."""
        return dataclasses.replace(
            self,
            pending=list(self.pending),
            recent=list(self.recent),
            source=self.source.copy(),
        )

    @property
    def sources(self) -> tuple[SourceMark, ...]:
        """All sources of which something was read, or is about to be; the current one is last."""
        begun = self.source.offset or not self.source.finished
        return (*self.earlier, self.source) if begun else self.earlier

    def begin_source(self, name: str, location: str) -> bool:
        """Begin another source; returns whether something was read, or is to be, before it."""
        before = self.source
        self._note_current()
        self.source = SourceMark(name, location)
        # Of a source that was left before its first byte, the session has read nothing.
        return before.finished or before.offset > 0

    def go_on(self, mark: SourceMark) -> bool:
        """Go on with one of ``sources``; returns whether it is another one than the current."""
        if mark == self.source:
            self.source = mark
            return False
        earlier = list(self.earlier)
        if mark in earlier:
            earlier.remove(mark)
        self.earlier = tuple(earlier)
        self._note_current()
        self.source = mark
        return True

    def _note_current(self) -> None:
        """The current source becomes an earlier one, if anything of it was read."""
        if self.source.offset:
            self.earlier = (*self.earlier, dataclasses.replace(self.source, running=None))

    def advance(self, count: int) -> None:
        """The first ``count`` pending tokens were fed."""
        fed = self.pending[:count]
        del self.pending[:count]
        self.recent = (self.recent + fed)[-RECENT_TOKENS:]
        self.position += count


def zero(state: StateSpec, tensors: Tensors) -> None:
    """Make a blank state; at position 0 the operators supply the initial weights themselves."""
    for layer, tensor in state:
        tensors.write(past_name(layer, tensor.name), np.zeros(tensor.shape, tensor.element))


def not_finite(
    state: StateSpec, tensors: Tensors, parts: Iterable[str] | None = None
) -> str | None:
    """Name of the first tensor that holds a NaN or an infinity, or None.

    Args:
        state: which tensors there are.
        tensors: their values.
        parts: look only at tensors of these names; all by default.
    """
    wanted = None if parts is None else frozenset(parts)
    for layer, tensor in state:
        if wanted is not None and tensor.name not in wanted:
            continue
        if tensor.element == "int8":
            continue  # what is not finite shows in its scales
        name = past_name(layer, tensor.name)
        values = tensors.read(name)
        # A sum needs no array of flags; it overflows only where the exact test must decide.
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduce(values, axis=None, dtype=np.float32)
        if not np.isfinite(total) and not np.isfinite(values).all():
            return name
    return None
