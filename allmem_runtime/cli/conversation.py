"""The chat at a terminal: questions in, answers out, a few commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from allmem_runtime.cli.long_question import LongQuestion
from allmem_runtime.cli.messages import say
from allmem_runtime.cli.prompt_answers import show, tell_ending, tell_places
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.cli.text_failures import TextFailures
from allmem_runtime.errors import AllMemError, StorageError
from allmem_runtime.files.header import read_header
from allmem_runtime.files.session_lock import saving_alone
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.progress import Printer, SilentPrinter
from allmem_runtime.quantities import counted, format_bytes
from allmem_runtime.session.session import Session
from allmem_runtime.text.reading import Progress

HELP = """\
/undo         take the last question and its answer back
/save [FILE]  save the conversation with all that was read, by default to the --session file
/info         how much was read, how big the state is
/quit         leave, as Ctrl-D does
A text that is pasted is one question, with all its lines; Esc and then Enter begins a new line.
The arrow keys bring earlier questions back, until you leave.
Ctrl-C drops the line, and twice leaves; during an answer it ends the answer, and twice quits."""


class Conversation:
    """Questions and answers in one session, which remembers them.

    Args:
        session: what was read; the conversation goes on in it.
        sampling: how answers are drawn.
        target: where /save writes if it names no file.
        lines: gives the next line without its end; raises EOFError at the end.
        system: instruction for the first question, if nothing was read before it.
        failures: told where the text cannot be used; by default on standard error.
        passages: most passages of the text that are read again before a question.
        printer: shows the reading of a long question; by default nobody does.
    """

    def __init__(
        self,
        session: Session,
        sampling: Sampling,
        target: Path | None,
        lines: Callable[[], str],
        system: str | None = None,
        *,
        failures: TextFailures | None = None,
        passages: int = 0,
        printer: Printer | None = None,
    ) -> None:
        self._session = session
        self._sampling = sampling
        self._target = target
        self._lines = lines
        self._system = system
        self._failures = failures or TextFailures(say)
        self._passages = passages
        self._printer = printer or SilentPrinter()
        self._saved = session.info()["parent"]  # what the target holds as long as it is ours

    def run(self) -> None:
        """Until Ctrl-D, /quit, or two Ctrl-C with nothing between them."""
        say("Ask, or type /help. Ctrl-D leaves.")
        interrupted = False
        while True:
            try:
                line = self._lines().strip()
                interrupted = False
                if line == "/quit":
                    return
                self._take(line)
            except EOFError:
                click.echo(err=True)
                return
            except KeyboardInterrupt:
                # At the prompt, or in the moment before an answer begins.
                if interrupted:
                    return
                interrupted = True
                click.echo(err=True)
                say("Ctrl-D leaves, as does Ctrl-C again.")
            except AllMemError as error:
                say(str(error))
                if self._session.info()["failure"]:
                    raise

    def _take(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        if not line:
            return
        if not line.startswith("/") or "\n" in line:
            self._ask(line)
        elif command == "/save":
            self._save(argument.strip())
        elif command == "/undo" and not argument:
            self._session.undo()
            say("Taken back.")
        elif command == "/info" and not argument:
            self._info()
        elif command == "/help" and not argument:
            for text in HELP.splitlines():
                say(text)
        else:
            say(f"There is no command {line!r}; /help lists them.")

    def _ask(self, question: str) -> None:
        before = self._session.position
        parts: list[str] = []
        ended = False
        long = LongQuestion(question, self._session, self._printer)

        def read(step: Progress) -> None:
            nonlocal ended
            if parts and not ended:  # the session itself reads a question after its answer
                click.echo()
                ended = True
            long.told(step)

        with Interrupts(self._session.cancel):
            for text in self._session.stream(
                question,
                passages=self._passages,
                sampling=self._sampling,
                system=self._system,
                progress=read,
            ):
                long.done()
                parts.append(text)
                show(text)
        long.done()
        if not ended:
            click.echo()
        tell_ending("".join(parts), self._session.finish_reason, self._sampling)
        self._failures.look(self._session)
        if parts and self._passages and self._session.text is not None:
            tell_places(self._session.passages)
        if self._session.position > before:
            self._system = None

    def _save(self, name: str) -> None:
        path = Path(name).expanduser() if name else self._target
        if path is None:
            say("Say where: /save FILE")
            return
        with saving_alone(path, say):
            if path == self._target:
                self._refuse_what_others_saved(path)
            self._session.save(path)
        if path == self._target:
            self._saved = self._session.info()["parent"]
        self._failures.look(self._session)
        say(f"Saved {path}.")

    def _refuse_what_others_saved(self, path: Path) -> None:
        if path.exists() and read_header(path).digest != self._saved:
            raise StorageError(
                f"{path} was saved by another process since it was opened here.",
                "Name another file: /save FILE",
            )

    def _info(self) -> None:
        info = self._session.info()
        say(
            f"{info['model']} on {info['device']}, {info['operators']} operators; "
            f"{counted(info['position'], 'token')} read; "
            f"state {format_bytes(info['state_bytes'])} (constant). "
            f"{info['device_reason']}"
        )
