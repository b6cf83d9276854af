"""What is read before an answer from passages: earlier exchanges, passages, the question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.wanted import instruction, wants_several
from allmem_runtime.state import Turn
from allmem_runtime.text.chat import SEPARATOR
from allmem_runtime.text.turns import Turns

LONGEST_COMPARED = 192
"""Tokens of a question that is read with each passage; a longer one is read with the best alone."""

EARLIER_TOKENS = 128
"""Tokens of the exchanges before the question that are read with it, the last ones first."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer.

    Args:
        question: of the user.
        answer: as far as it was written.
    """

    question: str
    answer: str

    def __str__(self) -> str:
        return f"{self.question}\n{self.answer}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is read before an answer.

    Args:
        tokens: all of it, at least one.
        asked: which of them are the question's.
        passages: those in it, the best first.
    """

    tokens: list[int]
    asked: range = range(0)
    passages: tuple[Passage, ...] = ()

    @property
    def score(self) -> float:
        """How well the best of the passages fits by the search."""
        return max((passage.score for passage in self.passages), default=0.0)

    @property
    def likeness(self) -> float | None:
        """How like the question the most like of the passages is; None where none can tell."""
        told = [one.likeness for one in self.passages if one.likeness is not None]
        return max(told, default=None)

    @property
    def share(self) -> float:
        """Most of the question's words that a passage has, by what they count."""
        return max((passage.share for passage in self.passages), default=0.0)


def prompts(
    turns: Turns,
    count: Callable[[str], int],
    found: Sequence[Passage],
    question: str,
    earlier: Sequence[Exchange] = (),
    system: str | None = None,
    *,
    bare: bool = False,
) -> list[Prompt]:
    """A prompt for each passage, or one for all where the question asks for several things.

    Before them may go one without passages, to compare them with; not where the question may lean
    on others before it, nor where it is too long to be read twice.

    Args:
        turns: of the model.
        count: tokens of a text.
        found: the passages, the best first.
        question: of the user.
        earlier: exchanges before it, the last one last.
        system: instruction that opens the conversation.
        bare: whether there is one without passages.

    Raises:
        UsageError: the question is too long.
    """
    before = _conversation(turns, earlier, system)
    turn: Turn = "start"
    if before:
        turn, system = "reply", None
    behind = instruction(question)
    unasked, asked = turns.question(turn, behind, system), count(question)

    def prompt(passages: tuple[Passage, ...]) -> Prompt:
        texts = [passage.text.strip() for passage in reversed(passages)]
        text = SEPARATOR.join([*texts, question + behind])
        tokens = turns.question(turn, text, system)
        end = len(before) + len(tokens) - shared(tokens[::-1], unasked[::-1])
        # What a bare question begins with follows from nothing; it counts as certain.
        first = max(1, end - asked) + (not passages)
        return Prompt([*before, *tokens], range(first, end), passages)

    if asked > LONGEST_COMPARED:
        return [prompt((found[0],))]
    spread = len(set().union(*(p.names for p in found))) > max(len(p.names) for p in found)
    together = spread or wants_several(question)
    groups = [tuple(found)] if together else [(passage,) for passage in found]
    return [prompt(group) for group in [()] * (bare and not before) + groups]


def _conversation(turns: Turns, earlier: Sequence[Exchange], system: str | None) -> list[int]:
    """Tokens of the last exchanges that have an answer, as many as there is room for."""
    tokens: list[int] = []
    # A small model answers a question that was left open rather than the one behind it.
    earlier = [exchange for exchange in earlier if exchange.answer.strip()]
    for first in reversed(range(len(earlier))):
        longer: list[int] = []
        turn: Turn = "start"
        opening = system
        for exchange in earlier[first:]:
            longer += turns.question(turn, exchange.question, opening)
            longer += turns.answer(exchange.answer)
            turn, opening = "reply", None
        if len(longer) > EARLIER_TOKENS:
            break
        tokens = longer
    return tokens


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two lists have in common from their beginning on."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
