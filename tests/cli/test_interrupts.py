"""Ctrl-C keeps what was read, endless sources are answered at pauses, and terminals get a chat."""

from __future__ import annotations

import os
import signal
import time
from hashlib import sha256
from pathlib import Path

import pytest
from commands import TEXT, Command, assert_same_state, finished, process, until
from terminal import Terminal

from allmem_runtime.files import snapshot

PORTABLE = ("--device", "cpu", "--operators", "portable")
SHORT = (*PORTABLE, "--max-tokens", 4)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_ends_of_a_process_keep_what_was_read_like_ctrl_c(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path, name: str
) -> None:
    document.write_text(TEXT * 300, encoding="utf-8")
    session, once = tmp_path / "s.allmem", tmp_path / "once.allmem"
    arguments = (tiny_model_dir, document, "--session", session, "--prompt", "Who?", "--json")
    number = getattr(signal, name)
    running = process(
        "allmem-run",
        *arguments,
        *SHORT,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # it may be ignored here
    )
    until(running, "reading")
    running.send_signal(number)
    result = finished(running)
    assert result.code == 128 + number, result.err
    assert result.of("answer") == [] and result.of("interrupted")
    assert not snapshot.read_header(session).place(1 << 20).source.finished

    assert command("allmem-run", *arguments, *SHORT).of("start")[0]["resumed"]
    assert command("allmem-run", tiny_model_dir, document, "--session", once, *SHORT).code == 0
    assert_same_state(session, once)


def test_a_reader_of_messages_that_leaves_stops_no_reading(
    tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    document.write_text(TEXT * 30, encoding="utf-8")
    session = tmp_path / "s.allmem"
    theirs, ours = os.pipe()
    os.close(theirs)  # as after `2>&1 | head -1`
    arguments = (tiny_model_dir, document, "--session", session, "--prompt", "Who?")
    result = finished(process("allmem-run", *arguments, *SHORT, stderr=ours))
    os.close(ours)
    assert result.code == 0 and result.out
    assert snapshot.read_header(session).place(1 << 20).source.finished


def test_ctrl_c_keeps_what_was_read_and_the_same_command_goes_on_as_if_nothing_happened(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    document.write_text(TEXT * 300, encoding="utf-8")
    session, once = tmp_path / "s.allmem", tmp_path / "once.allmem"
    arguments = (tiny_model_dir, document, "--session", session, "--prompt", "Who?", "--json")
    running = process("allmem-run", *arguments, *SHORT)
    until(running, "reading")
    running.send_signal(signal.SIGINT)
    sent = time.monotonic()
    result = finished(running)
    assert time.monotonic() - sent < 20
    assert result.code == 130
    kinds = [event["event"] for event in result.events]
    assert "answer" not in kinds
    assert kinds[-1] == "notice"
    assert "goes on from here" in result.events[-1]["text"]
    stopped = snapshot.read_header(session).place(1 << 20)
    assert 0 < stopped.source.offset < document.stat().st_size
    assert not stopped.source.finished

    again = command("allmem-run", *arguments, *SHORT)
    assert again.code == 0
    assert again.of("start")[0]["resumed"]
    assert again.of("answer")
    assert command("allmem-run", tiny_model_dir, document, "--session", once, *SHORT).code == 0
    assert_same_state(session, once)
    marks = [snapshot.read_header(path).place(1 << 20).source for path in (session, once)]
    assert marks[0].digest == marks[1].digest
    assert marks[0].digest == sha256(document.read_bytes()).hexdigest()
    tokens_again = again.of("read")[0]["tokens"]
    assert tokens_again == snapshot.read_header(once).place(1 << 20).position - stopped.position


def test_ctrl_c_while_a_pipe_is_silent_ends_at_once_and_saves(
    tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    running = process("allmem-run", tiny_model_dir, "-", "--session", session, "--json", *SHORT)
    assert running.stdin is not None
    running.stdin.write(document.read_bytes())
    running.stdin.flush()
    until(running, "reading")
    time.sleep(1.5)  # the text is read, the pipe is open and silent
    running.send_signal(signal.SIGINT)
    sent = time.monotonic()
    assert running.wait(30) == 130
    assert time.monotonic() - sent < 10
    assert finished(running).code == 130
    assert snapshot.read_header(session).place(1 << 20).source.offset > 0


def test_the_second_ctrl_c_quits_at_once(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    command("allmem-run", tiny_model_dir, document, "--session", session, *SHORT)
    written = session.read_bytes()
    # A named source that says nothing: whether it is the one read before cannot be told yet.
    running = process("allmem-run", tiny_model_dir, "-", "--session", session, "--json", *SHORT)
    until(running, "start")
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    while b"Ctrl-C again" not in (said := running.stderr.readline()):
        assert said, "ended at the first"
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(10) == 130
    running.communicate()
    assert session.read_bytes() == written


def test_a_stream_is_answered_at_each_pause_and_at_its_end_and_read_as_if_it_had_none(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session, once = tmp_path / "s.allmem", tmp_path / "once.allmem"
    running = process(
        "allmem-run", tiny_model_dir, "--stream", "--pause", 0.3, "--prompt", "What is new?",
        "--session", session, "--json", *SHORT,
    )  # fmt: skip
    assert running.stdin is not None
    data = document.read_bytes()
    positions = []
    for part in (data[:77], data[77:1500]):  # the first cuts a character
        running.stdin.write(part)
        running.stdin.flush()
        until(running, "pause")
        positions.append(until(running, "answer")["position"])
    rest = finished(running, data[1500:])
    assert rest.code == 0
    positions.append(rest.of("answer")[-1]["position"])
    assert positions == sorted(set(positions))
    assert "saved" in [event["event"] for event in rest.events]
    assert command("allmem-run", tiny_model_dir, document, "--session", once, *SHORT).code == 0
    assert_same_state(session, once)
    marks = [snapshot.read_header(path).place(1 << 20).source for path in (session, once)]
    assert [mark.name for mark in marks] == ["standard input", document.name]
    assert (marks[0].digest, marks[0].head) == (marks[1].digest, marks[1].head)


def test_ctrl_c_ends_a_stream_with_a_last_answer(tiny_model_dir: Path, document: Path) -> None:
    running = process(
        "allmem-run", tiny_model_dir, "--stream", "--pause", 60, "--prompt", "?", "--json", *SHORT
    )
    assert running.stdin is not None
    running.stdin.write(document.read_bytes())
    running.stdin.flush()
    until(running, "reading")
    running.send_signal(signal.SIGINT)
    until(running, "answer")
    assert running.wait(30) == 130
    running.communicate()


def test_a_stream_is_new_text_for_a_session_that_has_read(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    arguments = (tiny_model_dir, "--session", session, "--json", *SHORT)
    first = command("allmem-run", *arguments, document).of("read")[0]["position"]
    more = command("allmem-run", *arguments, "--stream", stdin=b"Something new.\n")
    assert more.of("read")[0]["position"] > first


def test_a_terminal_gets_a_bar_and_a_chat_with_commands(
    tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "chat.allmem"
    terminal = Terminal(tiny_model_dir, document, "--session", tmp_path / "s.allmem", *SHORT)
    assert "█" in terminal.wait_for("Ask, or type /help")
    terminal.wait_for("> ")
    terminal.type("Who?\n")
    terminal.wait_for("> ")
    terminal.type("/info\n")
    before = terminal.wait_for("(constant)")
    terminal.type("And where?\n")
    terminal.wait_for("> ")
    terminal.type("/undo\n")
    terminal.wait_for("Taken back.")
    terminal.type("/info\n")
    after = terminal.wait_for("(constant)")
    tokens = [text.split("operators; ")[1].split(" tokens")[0] for text in (before, after)]
    assert tokens[0] == tokens[1]
    terminal.type("/undo\n")
    terminal.wait_for("no exchange to take back")
    terminal.type("/nonsense\n")
    terminal.wait_for("There is no command")
    terminal.type(f"/save {saved}\n")
    terminal.wait_for("Saved")
    terminal.press("\x04")
    assert terminal.end() == 0
    read = snapshot.read_header(tmp_path / "s.allmem").place(1 << 20)
    talked = snapshot.read_header(saved).place(1 << 20)
    assert (read.turn, talked.turn) == ("document", "reply")
    assert talked.position > read.position


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(tiny_model_dir: Path) -> None:
    # Always taking the likeliest token, this model goes in circles and never ends by itself.
    terminal = Terminal(tiny_model_dir, *PORTABLE, "--max-tokens", 1000000)
    terminal.press("\x03")
    terminal.wait_for("Ctrl-D leaves, as")
    terminal.wait_for("> ")
    terminal.type("Who?\n")
    terminal.wait_for("Who?\r")
    terminal.wait_for("\r\n\r\n\r\n")  # it is answering
    terminal.type("\x03")
    terminal.wait_for("Stopping")
    terminal.wait_for("\n> ")
    terminal.type("/quit\n")
    assert terminal.end() == 0


def test_a_document_on_standard_input_leaves_the_terminal_for_questions(
    tiny_model_dir: Path, document: Path
) -> None:
    with document.open("rb") as stdin:
        terminal = Terminal(tiny_model_dir, "-", *SHORT, stdin=stdin.fileno())
        terminal.wait_for("Ask, or type /help")
        terminal.wait_for("> ")
        terminal.type("Who?\n")
        terminal.wait_for("\r\n")
        terminal.press("\x04")
        assert terminal.end() == 0
