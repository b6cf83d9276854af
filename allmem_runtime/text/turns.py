"""Which tokens open, close and separate turns: the grammar of a session, without its state."""

from __future__ import annotations

from collections.abc import Sequence

from allmem_runtime.errors import UsageError
from allmem_runtime.state import Turn
from allmem_runtime.text.chat import ChatTemplate, Part
from allmem_runtime.text.tokenizer import Tokenizer

SEPARATOR = "\n\n"
"""Between two documents of one turn, and between a document and the question."""

MAX_QUESTION_CHARACTERS = 1 << 18


class Turns:
    """Writes what a chat template puts between the texts of people.

    Args:
        tokenizer: of the model.
        chat: the model's template.
        begin: tokens every text of this model begins with.
    """

    def __init__(self, tokenizer: Tokenizer, chat: ChatTemplate, begin: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self._begin = list(begin)

    def open_document(self, turn: Turn, finished: bool, system: str | None) -> list[int]:
        """What goes before a document.

        Args:
            turn: where the session stands.
            finished: whether an earlier document of the open turn was read to its end; if not,
                this is the rest of it.
            system: instruction that opens a conversation.
        """
        if turn == "document":
            _no_system(system)
            return self._tokenizer.encode_text(SEPARATOR) if finished else []
        return self._open_turn(turn, system)

    def question(self, turn: Turn, question: str, system: str | None) -> list[int]:
        """A question and all around it, up to where the answer begins.

        Raises:
            UsageError: the question is too long, or the system text comes too late.
        """
        if len(question) > MAX_QUESTION_CHARACTERS:
            raise UsageError(
                f"The question has {len(question)} characters; at most "
                f"{MAX_QUESTION_CHARACTERS} are allowed.",
                "Let the session ingest long texts, and ask afterwards.",
            )
        if turn == "document":
            _no_system(system)
            before, question = [], SEPARATOR + question
        else:
            before = self._open_turn(turn, system)
        return [
            *before,
            *self._tokenizer.encode_text(question),
            *self._encode(self._chat.closing()),
        ]

    def raw(self, turn: Turn) -> list[int]:
        """What goes before text outside any conversation."""
        return list(self._begin) if turn == "start" else []

    def _open_turn(self, turn: Turn, system: str | None) -> list[int]:
        if turn == "reply":
            _no_system(system)
            return self._encode(self._chat.between())
        opening = self._encode(self._chat.opening(system))
        # Some templates write the first tokens themselves.
        begun = turn != "start" or opening[: len(self._begin)] == self._begin
        return opening if begun else [*self._begin, *opening]

    def _encode(self, parts: Sequence[Part]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            if part.control:
                ids += self._tokenizer.encode_template(part.text)
            else:
                ids += self._tokenizer.encode_text(part.text)
        return ids


def _no_system(system: str | None) -> None:
    if system is not None:
        raise UsageError(
            "A system text can only open a conversation, and this one has begun.",
            "Give it with the first document or question.",
        )
