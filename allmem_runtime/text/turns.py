"""Which tokens open, close and separate turns: the grammar of a session, without its state."""

from __future__ import annotations

from collections.abc import Sequence

from allmem_runtime.errors import UsageError
from allmem_runtime.state import MAX_LEAD, Turn
from allmem_runtime.text.chat import SEPARATOR, ChatTemplate
from allmem_runtime.text.parts import After, Part
from allmem_runtime.text.tokenizer import Tokenizer

MAX_QUESTION_CHARACTERS = 1 << 18
_ANY_WORD = "The"


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

    def open_document(self, turn: Turn, begun: bool, system: str | None) -> tuple[list[int], str]:
        """What goes before a document.

        Args:
            turn: where the session stands.
            begun: whether this is the rest of a document.
            system: instruction that opens a conversation.

        Returns:
            Tokens, and text to encode together with the document.
        """
        if turn == "document":
            _no_system(system)
            return [], "" if begun else SEPARATOR
        parts = self._open_turn(turn, system)
        ids, text, after = self._tokenizer.open_parts(parts, _behind(turn))
        lead = self._lead(text)
        text = text.removesuffix(lead)
        ids += self._tokenizer.encode_text(text, after)
        return [*self._begun(turn, parts), *ids], lead

    def question(self, turn: Turn, question: str, system: str | None, lead: str = "") -> list[int]:
        """A question and all around it, up to where the answer begins.

        Args:
            turn: where the session stands.
            question: of the user.
            system: instruction that opens a conversation.
            lead: text that waits to be encoded together with what follows.

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
            before = [Part(SEPARATOR, control=False)]
        else:
            before = self._open_turn(turn, system)
        asked = Part(question, control=False)
        parts = [Part(lead, control=False), *before, asked, *self._chat.closing()]
        return [*self._begun(turn, before), *self._tokenizer.encode_parts(parts, _behind(turn))]

    def answer(self, answer: str) -> list[int]:
        """An answer as it stands in a conversation, behind its question."""
        _, text, after = self._tokenizer.open_parts(self._chat.closing(), "text")
        return self._tokenizer.encode_parts(self._chat.answered(answer), "text" if text else after)

    def raw(self, turn: Turn) -> list[int]:
        """Tokens before text outside any conversation."""
        return list(self._begin) if turn == "start" else []

    def behind(self, turn: Turn, tokens: Sequence[int]) -> After:
        """What stands before text that is encoded next.

        Args:
            turn: where the session stands.
            tokens: the last ones of all that was read or waits to be fed.
        """
        if not tokens or (turn == "raw" and list(tokens) == self._begin):
            return "start"
        return "control" if tokens[-1] in self._tokenizer.control else "text"

    def _open_turn(self, turn: Turn, system: str | None) -> list[Part]:
        if turn == "reply":
            _no_system(system)
            return self._chat.between()
        return self._chat.opening(system)

    def _lead(self, text: str) -> str:
        """The spaces at the end of a text, where they are better encoded with what follows."""
        rest = text.rstrip()
        lead = text[len(rest) :][-MAX_LEAD:]
        apart = not text or self._tokenizer.joins(text[: -len(lead) or None], lead + _ANY_WORD)
        return lead if apart else ""

    def _begun(self, turn: Turn, parts: Sequence[Part]) -> list[int]:
        """The tokens every text begins with, where the template does not write them itself."""
        if turn != "start":
            return []
        opening = self._tokenizer.encode_parts(parts)
        return [] if opening[: len(self._begin)] == self._begin else list(self._begin)


def _behind(turn: Turn) -> After:
    return "start" if turn == "start" else "text"


def _no_system(system: str | None) -> None:
    if system is not None:
        raise UsageError(
            "A system text can only open a conversation, and this one has begun.",
            "Give it with the first document or question.",
        )
