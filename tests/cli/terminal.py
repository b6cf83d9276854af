"""A process at a pseudo-terminal of its own, which sees what a person would and presses keys."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable

import pytest
from commands import process

_LISTENS = ">\x08"
"""How the editor draws the prompt of a line of which nothing was typed yet."""


class Terminal:
    """A process at a terminal of its own."""

    def __init__(
        self,
        *arguments: object,
        stdin: int | None = None,
        term: str = "dumb",
        start: Callable[..., subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self.master, slave = pty.openpty()

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        start = start or (lambda *given, **options: process("allmem-run", *given, **options))
        self.process = start(
            *arguments, stdin=slave if stdin is None else stdin, stdout=slave,
            stderr=slave, preexec_fn=take_terminal, env={"TERM": term},
        )  # fmt: skip
        os.close(slave)
        self.prompt = "> " if term == "dumb" else _LISTENS
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Everything shown since the last call, up to and with this text."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            try:
                data = os.read(self.master, 4096) if ready else b""
            except OSError:
                data = b""
            if not data:
                self.process.kill()
                pytest.fail(f"{text!r} did not come: {self.seen[-1000:]!r}")
            self.seen += data.decode("utf-8", "replace")
        shown, _, self.seen = self.seen.partition(text)
        return shown + text

    def type(self, text: str) -> None:
        """Give keys, as many at a time as the terminal takes, and take what it shows meanwhile."""
        data = text.encode()
        while data:
            readable, writable, _ = select.select([self.master], [self.master], [], 30)
            if readable:
                self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
            elif writable:
                data = data[os.write(self.master, data[:512]) :]
            else:
                pytest.fail(f"takes no keys: {self.seen[-1000:]!r}")

    def paste(self, text: str) -> None:
        """Give a text as terminals do that mark what is pasted."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def press(self, key: str) -> None:
        """Press Ctrl-C or Ctrl-D at the next prompt.

        The prompt is shown a moment before the line editor listens, and a key pressed within
        it is taken in the terminal's other mode.
        """
        self.wait_for(self.prompt)
        time.sleep(0.5)
        self.type(key)

    def end(self) -> int:
        """Wait for the exit, taking what is still shown."""
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                try:
                    self.seen += os.read(self.master, 4096).decode("utf-8", "replace")
                except OSError:
                    break
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            os.close(self.master)
