"""Lines typed and pasted at a real pseudo-terminal, of any length, after a piped document too."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from terminal import Terminal

LONG = "".join(f"{n:>4} and a word, " for n in range(0, 10_000, 16))[:10_000]
MANY_LINES = LONG.replace(" and", "\n and")
CHILD = """
import json, os, sys, time
from allmem_runtime.cli.terminal_lines import open_terminal, terminal_lines
from allmem_runtime.cli.standard_streams import unfailing
sys.stderr = unfailing(sys.stderr)
with terminal_lines(open_terminal(stdin_is_taken={taken})) as line:
    while True:
        try:
            got = line()
        except (EOFError, KeyboardInterrupt) as error:
            got = type(error).__name__
        os.write({report}, (json.dumps(got) + "\\n").encode())
        while os.path.exists({busy!r}):
            time.sleep(0.01)
"""
Lines = Callable[..., "Listener"]


class Listener(Terminal):
    """A terminal whose lines are told."""

    def __init__(self, taken: bool, term: str, quiet: bool, busy: Path) -> None:
        theirs, report = os.pipe()
        self.told = os.fdopen(theirs, encoding="utf-8")
        code = CHILD.format(taken=taken, report=report, busy=str(busy))

        def start(**options: Any) -> subprocess.Popen[bytes]:
            environment = {**os.environ, **options.pop("env")}
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
            if quiet:
                options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            command = [sys.executable, "-c", code]
            return subprocess.Popen(command, env=environment, pass_fds=[report], **options)

        null = os.open(os.devnull, os.O_RDONLY)
        super().__init__(start=start, stdin=null if taken else None, term=term)
        os.close(report)
        os.close(null)

    def line(self) -> str:
        """The next line it got; what it shows meanwhile is taken."""
        while True:
            ready, _, _ = select.select([self.told, self.master], [], [], 60)
            if self.told in ready:
                text: str = json.loads(self.told.readline())
                return text
            assert ready, f"tells no line: {self.seen[-1000:]!r}"
            self.seen += os.read(self.master, 4096).decode("utf-8", "replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.told.close()
        os.close(self.master)


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """A file during whose life an answer is being written, after each line."""
    return tmp_path / "busy"


@pytest.fixture
def listen(busy: Path) -> Iterator[Lines]:
    open_: list[Listener] = []

    def make(taken: bool = False, term: str = "xterm-256color", quiet: bool = False) -> Listener:
        open_.append(Listener(taken, term, quiet, busy))
        return open_[-1]

    yield make
    for listener in open_:
        listener.close()


@pytest.mark.parametrize("taken", [False, True], ids=["at standard input", "beside a document"])
def test_a_long_paste_arrives_whole_and_its_lines_are_one_question(
    listen: Lines, taken: bool
) -> None:
    terminal = listen(taken)
    terminal.wait_for(terminal.prompt)
    terminal.paste(LONG)
    terminal.type("\r")
    assert terminal.line() == LONG
    terminal.wait_for(terminal.prompt)
    terminal.paste(MANY_LINES)
    terminal.type(" Why?\r")
    assert terminal.line() == f"{MANY_LINES} Why?"


def test_a_dumb_terminal_cuts_no_line_either(listen: Lines) -> None:
    terminal = listen(taken=True, term="dumb")
    terminal.wait_for(terminal.prompt)
    terminal.type(f"{LONG[:4200]}\n")
    assert terminal.line() == LONG[:4200]
    assert "\x1b" not in terminal.seen


def test_without_a_place_to_draw_lines_come_as_they_are(listen: Lines) -> None:
    terminal = listen(quiet=True)
    terminal.type("Who?\n")
    assert terminal.line() == "Who?\n"


def test_keys_edit_begin_a_line_and_bring_earlier_lines_back(listen: Lines) -> None:
    terminal = listen()
    terminal.wait_for(terminal.prompt)
    terminal.type("Wo?\x1b[D\x1b[Dh\r")  # twice to the left
    assert terminal.line() == "Who?"
    terminal.wait_for(terminal.prompt)
    terminal.type("one\x1b\rtwo\r")
    assert terminal.line() == "one\ntwo"
    terminal.wait_for(terminal.prompt)
    terminal.type("\x1b[A\x1b[A\x1b[A\r")  # up over two lines, and to what was before them
    assert terminal.line() == "Who?"


def test_ctrl_c_and_ctrl_d_are_told_and_the_next_line_is_blank(listen: Lines) -> None:
    terminal = listen()
    terminal.wait_for(terminal.prompt)
    terminal.type("half a question\x03")
    assert terminal.line() == "KeyboardInterrupt"
    terminal.wait_for(terminal.prompt)
    terminal.type("Who?\r")
    assert terminal.line() == "Who?"
    terminal.wait_for(terminal.prompt)
    terminal.type("\x04")
    assert terminal.line() == "EOFError"


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
@pytest.mark.parametrize("taken", [False, True], ids=["at standard input", "beside a document"])
def test_what_is_typed_during_an_answer_is_the_next_line_whole(
    listen: Lines, busy: Path, taken: bool, term: str
) -> None:
    terminal = listen(taken, term)
    terminal.wait_for(terminal.prompt)
    busy.touch()
    terminal.type("Who?\r")
    assert terminal.line() == "Who?"
    terminal.type(LONG)
    terminal.type(LONG)
    busy.unlink()
    terminal.type(" Why?\r")
    assert terminal.line() == f"{LONG}{LONG} Why?"


def test_a_paste_that_an_answer_ends_amid_is_one_line(listen: Lines, busy: Path) -> None:
    terminal = listen()
    terminal.wait_for(terminal.prompt)
    busy.touch()
    terminal.type("Who?\r")
    assert terminal.line() == "Who?"
    terminal.type(f"\x1b[200~{MANY_LINES}")
    busy.unlink()
    terminal.type(f"{MANY_LINES}\x1b[201~\r")
    assert terminal.line() == MANY_LINES * 2


def test_ctrl_c_is_heard_behind_a_long_paste_during_an_answer(listen: Lines, busy: Path) -> None:
    terminal = listen()
    terminal.wait_for(terminal.prompt)
    busy.touch()
    terminal.type("Who?\r")
    assert terminal.line() == "Who?"
    terminal.type(LONG)
    time.sleep(0.2)
    terminal.type("\x03")
    assert terminal.process.wait(30) == -signal.SIGINT


def test_during_an_answer_the_terminal_shows_no_keys_and_is_asked_to_mark_pastes(
    listen: Lines, busy: Path
) -> None:
    terminal = listen()
    before = termios.tcgetattr(terminal.master)
    terminal.wait_for(terminal.prompt)
    busy.touch()
    terminal.type("Who?\r")
    assert terminal.line() == "Who?"
    terminal.wait_for("\x1b[?2004l\x1b[?2004h")
    flags = termios.tcgetattr(terminal.master)[3]
    assert not flags & (termios.ICANON | termios.ECHO) and flags & termios.ISIG
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(30) == 128 + signal.SIGTERM
    terminal.wait_for("\x1b[?2004l")
    assert termios.tcgetattr(terminal.master) == before


def test_a_signal_at_the_prompt_leaves_the_terminal_as_it_was(listen: Lines) -> None:
    terminal = listen()
    before = termios.tcgetattr(terminal.master)[3]
    terminal.wait_for(terminal.prompt)
    deadline = time.monotonic() + 30
    while termios.tcgetattr(terminal.master)[3] & termios.ICANON:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(30) == 128 + signal.SIGTERM
    assert termios.tcgetattr(terminal.master)[3] == before


@pytest.mark.parametrize("term", ["xterm", "dumb"])
@pytest.mark.parametrize("question", ["7" * 10_000, "7" * 5000 + "\n" + "7" * 4999])
def test_a_chat_after_a_piped_document_takes_a_long_question(
    tiny_model_dir: Path, document: Path, term: str, question: str
) -> None:
    """As `cat document | allmem-run MODEL -` has it: standard input is a pipe, and has ended."""
    if term == "dumb" and "\n" in question:
        pytest.skip("a terminal that marks no pastes ends a question with each line")
    with subprocess.Popen(["cat", str(document)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        terminal = Terminal(
            tiny_model_dir, "-", "--device", "cpu", "--max-tokens", 2, "--passages", 0,
            stdin=writer.stdout.fileno(), term=term,
        )  # fmt: skip
        writer.stdout.close()
        end = "\r" if term == "xterm" else "\n"
        terminal.wait_for("leaves.")
        read = []
        for asked in ("", question, ""):
            terminal.wait_for(terminal.prompt)
            if asked:
                # The tokenizer takes each character for one.
                terminal.paste(asked) if term == "xterm" else terminal.type(asked)
                terminal.type(end)
                terminal.wait_for("(cut after 2")
            else:
                terminal.type(f"/info{end}")
                read.append(int(terminal.wait_for(" tokens read").split()[-3].replace(",", "")))
        assert 10_000 < read[1] - read[0] < 10_020
        terminal.press("\x04")
        assert terminal.end() == 0


def test_two_ctrl_c_at_the_prompt_leave_the_chat(tiny_model_dir: Path) -> None:
    terminal = Terminal(tiny_model_dir, "--device", "cpu", term="xterm")
    terminal.press("\x03")
    terminal.wait_for("as does Ctrl-C again.")
    terminal.press("\x03")
    assert terminal.end() == 0


def test_only_a_chat_pays_for_the_editor(tiny_model_dir: Path) -> None:
    code = (
        "import sys, atexit; atexit.register(lambda: print('prompt_toolkit' in sys.modules))\n"
        "from allmem_runtime.cli import run_main; run_main()"
    )
    path = os.pathsep.join(path for path in sys.path if path)
    arguments = [tiny_model_dir, "--prompt", "Who?", "--max-tokens", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False"
