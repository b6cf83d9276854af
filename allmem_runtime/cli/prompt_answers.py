"""Answers prompts on forks of what was read: text or events on stdout, as it is written."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence

import click

from allmem_runtime.cli.long_question import LongQuestion
from allmem_runtime.cli.messages import say
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.cli.text_failures import TextFailures
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.printable import for_terminal
from allmem_runtime.progress import Printer
from allmem_runtime.quantities import counted
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.session import Session
from allmem_runtime.session.writing import FinishReason

_SENTENCE_CHARACTERS = 160


class Answerer:
    """Answers the same prompts whenever it is asked to.

    Args:
        prompts: the questions; each is answered on a fork of its own.
        sampling: how answers are drawn.
        printer: what is told besides the answers.
        interrupts: Ctrl-C.
        failures: told where the text cannot be used.
        passages: most passages of the text that are read again before each.
        as_json: events instead of text.
        quiet: do not repeat the questions on stderr.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        printer: Printer,
        interrupts: Interrupts,
        failures: TextFailures,
        *,
        passages: int,
        as_json: bool,
        quiet: bool,
    ) -> None:
        self._prompts = prompts
        self._sampling = sampling
        self._printer = printer
        self._interrupts = interrupts
        self._passages = passages
        self._as_json = as_json
        self._quiet = quiet
        self._failures = failures

    def answer_all(self, session: Session, system: str | None = None) -> None:
        """Answer every prompt; the session itself stays as it is.

        Args:
            session: what was read.
            system: instruction, if nothing has opened the conversation yet.
        """
        for number, prompt in enumerate(self._prompts):
            if self._interrupts.requested:
                return
            if not self._quiet and not self._as_json:
                say(f"> {prompt}")
            self._answer(session, number, prompt, system)

    def _answer(self, session: Session, number: int, prompt: str, system: str | None) -> None:
        began, first, parts = time.monotonic(), 0.0, []
        long = LongQuestion(prompt, session, self._printer)
        answer = session.answer(
            prompt,
            passages=self._passages,
            sampling=self._sampling,
            system=system,
            progress=long.told,
        )
        self._failures.look(session)
        with self._interrupts.also(answer.cancel):
            for text in answer:
                long.done()
                first = first or time.monotonic() - began
                parts.append(text)
                if self._as_json:
                    self._printer.event("text", prompt=number, text=text)
                else:
                    show(text)
        long.done()
        if not self._as_json:
            click.echo()
            if not self._quiet:
                tell_ending("".join(parts), answer.finish_reason, self._sampling)
                if parts and self._passages and session.text is not None:
                    tell_places(answer.passages)
        self._printer.event(
            "answer",
            prompt=number,
            question=prompt,
            text="".join(parts),
            finish_reason=answer.finish_reason,
            position=answer.position,
            passages=[dataclasses.asdict(passage) for passage in answer.passages],
            seconds_to_first_text=round(first, 3),
            seconds=round(time.monotonic() - began, 3),
        )


def tell_places(passages: Sequence[Passage]) -> None:
    """Say on stderr which places of the text an answer was given, and the sentence at each."""
    if not passages:
        say("(answered from the state alone)")
    for passage in passages:
        sentence = passage.sentence
        if len(sentence) > _SENTENCE_CHARACTERS:
            sentence = sentence[: _SENTENCE_CHARACTERS - 1] + "…"
        say(f"  {passage.sentence_place}  {sentence}")


def tell_ending(text: str, reason: FinishReason, sampling: Sampling) -> None:
    """Say on stderr that an answer is empty, or ended because it was long enough, not done."""
    blank = not text.strip()
    if reason == "length":
        most = counted(sampling.max_tokens, "token")
        what = "the answer is empty: no word in" if blank else "cut after"
        say(f"({what} {most}; --max-tokens allows more)")
    elif blank and reason != "cancelled":
        say("(the answer is empty: the model ended it before any word)")


def show(text: str) -> None:
    """Write a piece of an answer to stdout at once.

    A document could make the model write the control sequences of a terminal, so a terminal gets
    U+FFFD for them; files and pipes get what the model wrote.
    """
    sys.stdout.write(for_terminal(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
