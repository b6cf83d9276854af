"""What a session asks of whoever keeps the text it reads; it does not know who that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from allmem_runtime.text.places import Landmark, TextPlace


@dataclass(frozen=True, slots=True)
class Segment:
    """Text that was encoded and is now part of what the session has read.

    Args:
        source: name of the source, without its folder; empty where it has none.
        text: at least one character.
        first_byte: bytes of the source before it; 0 begins a source.
        end_byte: bytes of the source up to its end.
        token: tokens the session had read before it.
        tokens: its own tokens.
        begins: whether another source was read before it, so that it begins one, or goes on with
            an earlier one behind ``first_byte``.
        landmarks: pages and chapters it stands on, counted in its characters; one that goes on from
            before stands at 0.
    """

    source: str
    text: str
    first_byte: int
    end_byte: int
    token: int
    tokens: int
    begins: bool = False
    landmarks: tuple[Landmark, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that was read, found again for a question.

    Args:
        place: where it begins.
        text: what it says, as it was read.
        score: how well it fits the question; larger is better, comparable for one question only.
        tokens: what re-reading it takes.
        sentence: the sentence or line of it that fits best, in one line.
        sentence_place: where that sentence begins.
        names: those in it that the question asks for, such as ``calm-otter``.
        share: of the question's words it has, each by what it counts, from 0 to 1.
        likeness: how like the question it is by its tokens and by what it means; None where the
            model's embedding cannot tell.
    """

    place: TextPlace
    text: str
    score: float
    tokens: int
    sentence: str
    sentence_place: TextPlace
    names: tuple[str, ...] = ()
    share: float = 0.0
    likeness: float | None = None


class KeptText(Protocol):
    """The text of a session, kept in step with it.

    The session names by a digest how much of it it has read. It changes as text is taken, goes back
    with the session, and is saved with it.
    """

    def take(self, at: str, segment: Segment) -> str:
        """Add a segment to what was read up to ``at``; returns the digest up to its end.

        Raises:
            AllMemError: it cannot be kept; the session goes on without.
        """

    def save(self, at: str, session: Path) -> None:
        """Have all text up to ``at`` on disk beside a session file about to be written.

        Raises:
            AllMemError: it cannot be kept; the session is saved without.
        """

    def find(
        self,
        at: str,
        question: str,
        earlier: Sequence[str],
        most: int,
        tokens: int,
        count: Callable[[str], int],
    ) -> list[Passage]:
        """The passages up to ``at`` that fit a question best, the best first.

        Args:
            at: how much was read.
            question: of the user.
            earlier: turns of the conversation before it, the last one last.
            most: passages at most.
            tokens: that all of them may take.
            count: tokens of a text.

        Raises:
            AllMemError: the text cannot be used.
        """

    def known(self, at: str, question: str) -> float:
        """Share of the words of a question that the text up to ``at`` has, from 0 to 1.

        Raises:
            AllMemError: the text cannot be used.
        """

    def beginning(self, at: str, characters: int) -> str:
        """The first characters of the text up to ``at``, about as many.

        Raises:
            AllMemError: the text cannot be used.
        """

    def fork(self) -> Self:
        """The same for a fork of the session."""

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
