"""Lines of a terminal for the chat: edited, with a history, and of any length.

A terminal left to itself cuts a line at 4,095 characters. The editor takes the keys as they come,
from any terminal and not only from standard input, which may hold a document; those of the time
between two lines are kept for it. It is imported when a chat begins.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TextIO

import click

from allmem_runtime.cli.exit_codes import exit_code_of

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

_PROMPT = "> "


def open_terminal(*, stdin_is_taken: bool) -> TextIO | None:
    """Where questions can be typed, or None.

    Args:
        stdin_is_taken: standard input holds a document.
    """
    if sys.stdin.isatty() and not stdin_is_taken:
        return sys.stdin
    if not stdin_is_taken or not sys.stderr.isatty():
        return None
    for name in _names():
        try:
            return open(name, encoding="utf-8", errors="replace")
        except OSError:
            continue
    return None


def _names() -> Iterator[str]:
    if sys.platform == "win32":
        yield "CONIN$"
        return
    with contextlib.suppress(OSError):
        # The terminal itself: macOS cannot wait for keys of /dev/tty.
        yield os.ttyname(sys.stderr.fileno())
    yield "/dev/tty"


@contextmanager
def terminal_lines(terminal: TextIO) -> Iterator[Callable[[], str]]:
    """What gives the next line without its end, after a prompt.

    It raises EOFError at the end of the input, as after Ctrl-D, and KeyboardInterrupt on Ctrl-C.
    A text pasted with line ends is one line with these in it, where the terminal marks what is
    pasted; all but the very plainest do. The terminal is as it was once the body ends.

    Args:
        terminal: where lines are typed.
    """
    screen = next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)
    if screen is None:
        yield _plain(terminal)
        return
    with _edited(terminal, screen) as line:
        yield line


def _plain(terminal: TextIO) -> Callable[[], str]:
    """Lines as the terminal gives them; nothing can be drawn anywhere."""

    def line() -> str:
        click.echo(_PROMPT, nl=False, err=True)
        text = terminal.readline()
        if not text:
            raise EOFError
        return text

    return line


@contextmanager
def _edited(terminal: TextIO, screen: TextIO) -> Iterator[Callable[[], str]]:
    """Lines of the editor; on a terminal that cannot move its cursor, with the last key undone."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.input import create_input
    from prompt_toolkit.output import create_output

    from allmem_runtime.cli.typed_ahead import TypedAhead

    # Nobody waits for an answer of the terminal that comes late, or never.
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
    with create_app_session(create_input(terminal), create_output(screen)) as app:
        session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(), key_bindings=_keys(), enable_suspend=True
        )
    with _ended_in_order(), TypedAhead(app.input, app.output) as ahead:

        def line() -> str:
            # Raw before the prompt is seen: what is typed at once would be cut too.
            with (
                ahead.given(),
                create_app_session(app.input, app.output),
                app.input.raw_mode(),
            ):
                return session.prompt(_PROMPT, prompt_continuation=" " * len(_PROMPT))

        yield line


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have a signal that ends the process leave the terminal as the editor found it."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(exit_code_of(number))

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {
        number: signal.signal(number, end)
        for number in numbers
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
