"""What the model's chat template puts around questions and answers.

The template is rendered once with stand-ins for what people write and cut at them. What a user
writes is never part of a template's text, so it cannot become a control token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from allmem_runtime.errors import ModelFileError, UsageError
from allmem_runtime.text.parts import Part

_SYSTEM = "AllmemStandInSystem"
_USER = "AllmemStandInUser"
_ANSWER = "AllmemStandInAnswer"
_NEXT_USER = "AllmemStandInSecondUser"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The text around the turns of a conversation.

    Attributes:
        stop: texts that end an answer because the next turn would begin there.
        plain: whether the model has no template of its own.
    """

    _opening: str
    _system: tuple[str, str] | str
    _closing: str
    _between: str
    _answering: str = ""
    stop: tuple[str, ...] = ()
    plain: bool = False

    @classmethod
    def from_model(cls, template: str | None, control: Mapping[str, str]) -> ChatTemplate:
        """Find out what a template does.

        Thinking aloud is switched off in templates that know the switch ``enable_thinking``.

        Args:
            template: Jinja source; None stands for plain "Question/Answer" text.
            control: control tokens by the names templates use, such as ``bos_token``.

        Raises:
            ModelFileError: the template is not valid, fails, passes a limit, or does not repeat
                each text exactly once.
        """
        if template is None:
            return cls(
                "\n\nQuestion: ",
                ("", "\n\nQuestion: "),
                "\nAnswer:",
                "\n\nQuestion: ",
                stop=("\nQuestion:",),
                plain=True,
            )
        # The engine for templates takes longer to import than most templates to run.
        from allmem_runtime.text.templates import Template

        compiled = Template(template)

        def render(*contents: str) -> list[str]:
            roles = {_SYSTEM: "system", _ANSWER: "assistant"}
            messages = [{"role": roles.get(c, "user"), "content": c} for c in contents]
            variables = {
                **control,
                "messages": messages,
                "add_generation_prompt": True,
                "enable_thinking": False,
                "tools": None,
                "documents": None,
            }
            return _split(compiled.render(variables), contents)

        opening, closing = render(_USER)
        _, answering, between, _ = render(_USER, _ANSWER, _NEXT_USER)
        try:
            before, after, _ = render(_SYSTEM, _USER)
            system: tuple[str, str] | str = (before, after)
        except ModelFileError as error:
            system = error.message
        # A template may set an answer off by a space that the model writes by itself.
        set_off = answering.removeprefix(closing) if answering.startswith(closing) else ""
        return cls(opening, system, closing, between, set_off)

    def opening(self, system: str | None) -> list[Part]:
        """What comes before the first question.

        Raises:
            UsageError: a system text was given and the template has no place for it.
        """
        if system is None:
            return _parts((self._opening, True))
        if isinstance(self._system, str):
            raise UsageError(
                f"This model takes no system text ({self._system})",
                "Leave it out and put the instruction into the question.",
            )
        before, after = self._system
        return _parts((before, True), (system, False), (after, True))

    def closing(self) -> list[Part]:
        """What comes after a question, up to where the answer begins."""
        return _parts((self._closing, True))

    def answered(self, answer: str) -> list[Part]:
        """An answer as it stands behind ``closing``."""
        return [*_parts((self._answering, True)), Part(answer, control=False)]

    def between(self) -> list[Part]:
        """What comes after an answer, up to the next question."""
        return _parts((self._between, True))


def _parts(*texts: tuple[str, bool]) -> list[Part]:
    return [Part(text, control) for text, control in texts if text]


def _split(text: str, contents: Sequence[str]) -> list[str]:
    """Cut a rendered conversation at the stand-ins, which must be there once and in order."""
    pieces = []
    for content in contents:
        piece, found, text = text.partition(content)
        if not found or content in text:
            raise ModelFileError(
                "The model's chat template does not repeat each message exactly once, in order.",
                "Replace chat_template.jinja in the model folder.",
            )
        pieces.append(piece)
    return [*pieces, text]
