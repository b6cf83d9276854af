"""What the model's chat template puts around questions and answers.

The template is rendered once with stand-ins for what people write and cut at them. What a user
writes is never part of a template's text, so it cannot become a control token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from allmem_runtime.errors import ModelFileError, UsageError
from allmem_runtime.text.parts import Part

SEPARATOR = "\n\n"
"""Between two texts of one turn: two documents, a document and the question."""

REMEDY = (
    "Put another chat_template.jinja into the checkpoint, or none for plain questions and answers, "
    "and export it again."
)

Render = Callable[[list[dict[str, str]]], str]
"""From messages, each with ``role`` and ``content``, to the text of the conversation."""

_SYSTEM = "AllmemStandInSystem"
_USER = "AllmemStandInUser"
_ANSWER = "AllmemStandInAnswer"
_NEXT_USER = "AllmemStandInSecondUser"


class Refused(ModelFileError):
    """A template fails with a conversation, or says that it takes none of its kind."""


class Misplaced(ModelFileError):
    """A template leaves a text of a conversation out, repeats it or turns the order round."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The text around the turns of a conversation.

    Attributes:
        stop: texts that end an answer because the next turn would begin there.
        plain: whether the model has no template of its own.
    """

    _opening: str
    _system: tuple[str, str] | None
    _closing: str
    _between: str | None
    _answering: str = ""
    stop: tuple[str, ...] = ()
    plain: bool = False

    @classmethod
    def from_model(cls, render: Render | None) -> ChatTemplate:
        """Find out what a template does, in conversations of several shapes.

        A template without a place for a system text is good, and so is one that takes a single
        question, or asks for a system text.

        Args:
            render: makes the text of messages; None stands for plain "Question/Answer" text.

        Raises:
            ModelFileError: the template fails with every conversation, passes a limit, or does not
                repeat each text exactly once.
        """
        if render is None:
            return cls(
                "\n\nQuestion: ",
                ("", "\n\nQuestion: "),
                "\nAnswer:",
                "\n\nQuestion: ",
                stop=("\nQuestion:",),
                plain=True,
            )

        def pieces(*contents: str) -> list[str]:
            roles = {_SYSTEM: "system", _ANSWER: "assistant"}
            messages = [{"role": roles.get(c, "user"), "content": c} for c in contents]
            return pieces_around(contents, render(messages))

        system = _tried(pieces, _SYSTEM, _USER)
        alone = _tried(pieces, _USER)
        if isinstance(alone, list):
            first: tuple[str, ...] = ()
            opening, closing = alone
        elif isinstance(system, list):
            first = (_SYSTEM,)
            opening, closing = system[0] + system[1], system[2]
        else:
            raise alone
        longer = _tried(pieces, *first, _USER, _ANSWER, _NEXT_USER)
        if isinstance(longer, Misplaced):
            raise longer
        place = (system[0], system[1]) if isinstance(system, list) else None
        if not isinstance(longer, list):
            return cls(opening, place, closing, None)
        answering, between, _ = longer[-3:]
        # A template may set an answer off by a space that the model writes by itself.
        set_off = answering.removeprefix(closing) if answering.startswith(closing) else ""
        return cls(opening, place, closing, between, set_off)

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON knows it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> ChatTemplate:
        """The same from what ``as_data`` gave, in whatever way it was stored."""
        system = data["_system"]
        kept = None if system is None else (system[0], system[1])
        return cls(**{**data, "_system": kept, "stop": tuple(data["stop"])})

    @property
    def has_system(self) -> bool:
        """Whether a system text has a place of its own; it opens the first user turn if not."""
        return self._system is not None

    def opening(self, system: str | None) -> list[Part]:
        """What comes before the first question."""
        if system is None:
            return _parts((self._opening, True))
        if self._system is None:
            return _parts((self._opening, True), (system, False), (SEPARATOR, False))
        before, after = self._system
        return _parts((before, True), (system, False), (after, True))

    def closing(self) -> list[Part]:
        """What comes after a question, up to where the answer begins."""
        return _parts((self._closing, True))

    def answered(self, answer: str) -> list[Part]:
        """An answer as it stands behind ``closing``."""
        return [*_parts((self._answering, True)), Part(answer, control=False)]

    def between(self) -> list[Part]:
        """What comes after an answer, up to the next question.

        Raises:
            UsageError: the template has no place for one.
        """
        if self._between is None:
            raise UsageError(
                "This model's chat template takes one question only.",
                "Start a new session for the next one, or fork one before it is asked.",
            )
        return _parts((self._between, True))


def _parts(*texts: tuple[str, bool]) -> list[Part]:
    return [Part(text, control) for text, control in texts if text]


def _tried(pieces: Callable[..., list[str]], *contents: str) -> list[str] | ModelFileError:
    """The pieces of a conversation, or why a template refuses it or leaves a part of it out."""
    try:
        return pieces(*contents)
    except (Refused, Misplaced) as error:
        return error


def pieces_around(contents: Sequence[str], text: str) -> list[str]:
    """Cut a rendered conversation at its contents, which must be there once and in order.

    Raises:
        Misplaced: they are not.
    """
    pieces = []
    for content in contents:
        piece, found, text = text.partition(content)
        if not found or content in text:
            raise Misplaced(
                "The model's chat template does not repeat each message exactly once, in order.",
                REMEDY,
            )
        pieces.append(piece)
    return [*pieces, text]
