"""Names from outside reach neither the terminal's controls nor the line of another message."""

from __future__ import annotations

import os
import pty
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import MAINS, Command
from toy_fixtures import toy_dir  # noqa: F401  # a fixture

from allmem_runtime import cli
from allmem_runtime.cli.prompt_answers import show
from allmem_runtime.printable import for_terminal, printable

EVIL = os.fsdecode(b"a\x1b[31m\x07\r\nFORGED \xe2\x80\xae\xc2\x9b2J\x7f\xff")
"""Colors, a bell, a line of its own, text turned round, the other ways to control, no UTF-8."""
SHORT = ("--device", "cpu", "--operators", "portable", "--max-tokens", "2")
Screen = Callable[..., str]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Run a command in this process at a terminal; what the terminal got."""

    def call(name: str, *arguments: object) -> str:
        master, slave = pty.openpty()
        modes = termios.tcgetattr(slave)
        modes[1] &= ~termios.OPOST  # so that line ends stay as they are written
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        got: list[bytes] = []

        def take() -> None:
            try:
                while data := os.read(master, 1 << 16):
                    got.append(data)
            except OSError:
                pass  # the other end is closed

        taker = threading.Thread(target=take)
        taker.start()
        with monkeypatch.context() as patch:
            for stream in ("stdout", "stderr"):
                patch.setattr(sys, stream, os.fdopen(os.dup(slave), "w", encoding="utf-8"))
            with pytest.raises(SystemExit):
                getattr(cli, MAINS[name])([str(a) for a in arguments])
            sys.stdout._stream.close()
            sys.stderr._stream.close()
        os.close(slave)
        taker.join(30)
        os.close(master)
        return b"".join(got).decode()

    return call


def assert_harmless(shown: str) -> None:
    drawn = shown.replace("\r\x1b[K", "")  # how a bar is drawn anew
    assert not [c for c in drawn if c != "\n" and for_terminal(c) != c], shown
    assert not any(line.startswith("FORGED") for line in drawn.splitlines()), shown


@pytest.fixture
def evil(tmp_path: Path, toy_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A folder with such a document, a session that has read it, and no more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{EVIL}.txt").write_text("The key hangs in the hall.\n" * 9, encoding="utf-8")
    return toy_dir


READ = ["allmem-run", "MODEL", f"{EVIL}.txt", "--session", f"{EVIL}.allmem", *SHORT]


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([[*READ, "--prompt", f"Who is {EVIL}?"], READ], id="run, twice"),
        pytest.param([["allmem-run", "MODEL", EVIL, *SHORT]], id="run, no such source"),
        pytest.param([["allmem-run", EVIL, f"{EVIL}.txt"]], id="run, no such model"),
        pytest.param([["allmem-run", "MODEL", f"--{EVIL}"]], id="run, no such option"),
        pytest.param([["allmem", EVIL]], id="no such command"),
        pytest.param([READ, ["allmem", "info", f"{EVIL}.allmem"]], id="info"),
        pytest.param([["allmem", "info", EVIL]], id="info, missing"),
        pytest.param([["allmem", "info", f"{EVIL}.txt"]], id="info, a text"),
        pytest.param([READ, ["allmem", "fork", f"{EVIL}.allmem", "--as", EVIL]], id="fork"),
        pytest.param([READ, ["allmem", "delete", f"{EVIL}.allmem"]], id="delete"),
        pytest.param([["allmem", "delete", f"{EVIL}.txt"]], id="delete, a text"),
        pytest.param([["allmem", "recall", "MODEL", EVIL]], id="recall"),
        pytest.param([["allmem", "answer", "MODEL", f"{EVIL}.txt", "o"]], id="answer"),
        pytest.param([["allmem", "bench", "MODEL", "--text", EVIL]], id="bench"),
        pytest.param([["allmem", "prepare", EVIL]], id="prepare"),
        pytest.param([["allmem", "doctor", EVIL]], id="doctor"),
        pytest.param([["allmem", "eval", "needle", f"{EVIL}=MODEL", EVIL]], id="eval needle"),
        pytest.param([["allmem", "eval", "drift", f"{EVIL}={EVIL}", EVIL]], id="eval drift"),
        pytest.param([["allmem", "convert", EVIL, "out"]], id="convert"),
        pytest.param([["allmem", "make", EVIL, "out"]], id="make"),
        pytest.param([["allmem", "finetune", EVIL, EVIL, "out"]], id="finetune"),
        pytest.param([["allmem", "data", EVIL, "out"]], id="data"),
        pytest.param([["allmem", "heads", EVIL, EVIL, "out"]], id="heads"),
        pytest.param([["allmem", "export", EVIL, "out"]], id="export"),
    ],
)
def test_no_name_controls_the_terminal_or_forges_a_line(
    screen: Screen, command: Command, evil: Path, calls: list[list[str]]
) -> None:
    for call in calls:
        arguments = [part.replace("MODEL", str(evil)) for part in call]
        shown = screen(*arguments)
        assert_harmless(shown)
        assert "Traceback" not in shown
    told = command(*arguments)
    assert_harmless(told.err)
    if "--prompt" not in calls[-1]:
        assert_harmless(told.out)


def test_an_answer_controls_no_terminal_and_goes_to_a_pipe_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    said = "one\x1b[2J\x07\u202e two\r\n\tthree 👩‍🚀"
    show(said)
    assert capfdbinary.readouterr().out.decode() == said
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show(said)
    shown = capfdbinary.readouterr().out.decode()
    assert shown == "one\ufffd[2J\ufffd\ufffd two\ufffd\n\tthree 👩‍🚀"


def test_what_is_escaped_can_be_told_and_what_can_be_read_stays() -> None:
    assert printable("a\x1b\n\u202e\udcff\u2028") == r"a\x1b\n\u202e\udcff\u2028"
    for text in ("Größe 東\u3000京 👩‍🚀.txt", r"C:\new", "می\u200cخواهم", "a\u00a0b"):
        assert printable(text) == text
