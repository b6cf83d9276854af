"""What is put to a model: a document, questions about it, and how a prompt is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from allmem_runtime.model import Model
from allmem_runtime.text.chat import ChatTemplate
from allmem_runtime.text.parts import Part
from allmem_runtime.text.tokenizer import Tokenizer

PrefixIn = Literal["assistant", "user"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a document that was read.

    Args:
        text: follows the document without anything between.
        prefix: how the answer begins; written for the model, not by it.
        references: answers that count as right; what counts is the task's own matter.
        max_tokens: longest answer.
        detail: more columns for the result, such as a needle's depth.
    """

    text: str
    prefix: str
    references: tuple[str, ...]
    max_tokens: int
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """A document and its questions; each is asked of the document alone.

    Args:
        task: name of the task.
        column: which column of the table it counts for.
        sample: number of the item among those of its task and column.
        document: what is read once.
        questions: at least one.
        plain: never in the chat template, whatever the style.
    """

    task: str
    column: str
    sample: int
    document: str
    questions: tuple[Question, ...]
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Style:
    """How prompts are written.

    Args:
        chat: in the user's turn of the model's chat template; else as plain text to continue.
        prefix_in: whose turn holds the beginning of the answer.
    """

    chat: bool
    prefix_in: PrefixIn = "assistant"

    def digest(self, item: Item, question: Question) -> str:
        """SHA-256 over all that reaches the model: equal digests are equal prompts."""
        values = [
            self.chat and not item.plain, self.prefix_in, item.document, question.text,
            question.prefix, question.max_tokens,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(values).encode("utf-8")).hexdigest()


class Encoder:
    """Turns items into tokens for one model.

    Nothing in a document or question can become a control token.

    Args:
        model: whose tokenizer and template are used.
        style: how prompts are written.
    """

    def __init__(self, model: Model, style: Style) -> None:
        self._tokenizer: Tokenizer = model.tokenizer
        self._chat: ChatTemplate = model.chat
        self._begin = list(model.manifest.begin_tokens)
        self._style = style

    def document(self, item: Item) -> list[int]:
        """Everything up to the end of the document."""
        chat = self._style.chat and not item.plain
        opening = self._chat.opening(None) if chat else []
        return self._begun([*opening, Part(item.document, control=False)])

    def question(self, item: Item, question: Question) -> list[int]:
        """Everything from the question up to where the model goes on; never empty."""
        asked, prefix, closing = question.text, question.prefix, self._chat.closing()
        if item.plain or not self._style.chat:
            parts = [Part(asked + prefix, control=False)]
        elif self._style.prefix_in == "user":
            parts = [Part(asked + prefix, control=False), *closing]
        else:
            # The template ends with a line break or a space of its own.
            answer = Part(prefix.lstrip(), control=False)
            parts = [Part(asked, control=False), *closing, answer]
        return self._tokenizer.encode_parts(parts, "text")

    def overhead(self) -> int:
        """Tokens the template adds to a prompt."""
        if not self._style.chat:
            return len(self._begin)
        closing = self._tokenizer.encode_parts(self._chat.closing(), "text")
        return len(self._begun(self._chat.opening(None))) + len(closing)

    def _begun(self, parts: Sequence[Part]) -> list[int]:
        """Tokens of a prompt's beginning."""
        ids = self._tokenizer.encode_parts(parts)
        # Some templates write the first tokens themselves.
        begun = ids[: len(self._begin)] == self._begin
        return ids if begun else [*self._begin, *ids]
