"""Answers prompts on forks of what was read: text or events on stdout, as it is written."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Sequence

import click

from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.progress import Printer, printable
from allmem_runtime.session.session import Session


class Answerer:
    """Answers the same prompts whenever it is asked to.

    Args:
        prompts: the questions; each is answered on a fork of its own.
        sampling: how answers are drawn.
        printer: what is told besides the answers.
        interrupts: Ctrl-C.
        as_json: events instead of text.
        quiet: do not repeat the questions on stderr.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        printer: Printer,
        interrupts: Interrupts,
        *,
        as_json: bool,
        quiet: bool,
    ) -> None:
        self._prompts = prompts
        self._sampling = sampling
        self._printer = printer
        self._interrupts = interrupts
        self._as_json = as_json
        self._quiet = quiet

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
                click.echo(f"> {printable(prompt)}", err=True)
            self._answer(session.fork(), number, prompt, system)

    def _answer(self, fork: Session, number: int, prompt: str, system: str | None) -> None:
        began, first, parts = time.monotonic(), 0.0, []
        with self._interrupts.also(fork.cancel):
            for text in fork.stream(prompt, sampling=self._sampling, system=system):
                first = first or time.monotonic() - began
                parts.append(text)
                if self._as_json:
                    self._printer.event("text", prompt=number, text=text)
                else:
                    show(text)
        if not self._as_json:
            click.echo()
            if not self._quiet:
                tell_if_cut(fork, self._sampling)
        self._printer.event(
            "answer",
            prompt=number,
            question=prompt,
            text="".join(parts),
            finish_reason=fork.finish_reason,
            position=fork.position,
            seconds_to_first_text=round(first, 3),
            seconds=round(time.monotonic() - began, 3),
        )


def tell_if_cut(session: Session, sampling: Sampling) -> None:
    """Say on stderr that an answer ended because it was long enough, not because it was done."""
    if session.finish_reason == "length":
        click.echo(f"(cut after {sampling.max_tokens} tokens; --max-tokens allows more)", err=True)


def show(text: str) -> None:
    """Write a piece of an answer to stdout at once.

    A document could make the model write the control sequences of a terminal, so a terminal gets
    U+FFFD for them; files and pipes get what the model wrote.
    """
    if sys.stdout.isatty():
        text = "".join(
            "\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text
        )
    click.echo(text, nl=False)
