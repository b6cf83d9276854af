"""Two commands never save over each other; a session may be asked while another reads into it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from commands import Command, finished, process, until

from allmem_runtime import Model, Sampling, load
from allmem_runtime.cli.conversation import Conversation
from allmem_runtime.files import snapshot

SHORT = ("--max-tokens", 4, "--device", "cpu", "--operators", "portable")


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", operators="portable")


def read_bytes(session: Path) -> int:
    return snapshot.read_header(session).place(1 << 20).source.offset


def test_a_second_reader_is_refused_until_the_first_has_saved(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    options = ("--session", session, "--json", *SHORT)
    first = process("allmem-run", tiny_model_dir, "-", *options)
    until(first, "start")

    second = command("allmem-run", tiny_model_dir, document, *options)
    assert second.code == 1
    assert f"Another process is reading into {session}" in second.of("error")[0]["message"]
    assert "another file" in second.of("error")[0]["hint"]
    assert not session.exists()

    assert finished(first, b"What the first reads.\n").code == 0
    assert read_bytes(session) == len(b"What the first reads.\n")
    third = command("allmem-run", tiny_model_dir, document, *options)
    assert third.code == 0
    assert third.of("start")[0]["resumed"]
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["s.allmem", "s.allmem.passages", document.parent.name]
    )


def test_a_session_that_is_read_into_can_be_asked(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    options = ("--session", session, "--json", *SHORT)
    assert command("allmem-run", tiny_model_dir, document, *options).code == 0
    reader = process("allmem-run", tiny_model_dir, *options, "--stream")
    until(reader, "start")

    asked = command("allmem-run", tiny_model_dir, *options, "--prompt", "Who?")

    assert asked.code == 0
    assert asked.of("answer")
    assert finished(reader, b"More.\n").code == 0


def test_a_killed_reader_locks_nothing(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    options = ("--session", tmp_path / "s.allmem", "--json", *SHORT)
    first = process("allmem-run", tiny_model_dir, "-", *options)
    until(first, "start")
    first.send_signal(signal.SIGKILL)
    first.communicate()

    assert command("allmem-run", tiny_model_dir, document, *options).code == 0


def test_a_chat_does_not_save_over_what_another_process_saved(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = tmp_path / "s.allmem"
    model.session().save(session)
    theirs: list[bytes] = []
    lines = iter(["Who?", "/save", "Where?", "/save", f"/save {tmp_path / 'mine.allmem'}", "/quit"])

    def line() -> str:
        text = next(lines)
        if text == "Where?":
            other = model.open(session)
            other.ask("Another question", sampling=Sampling(max_tokens=2))
            other.save(session)
            theirs.append(session.read_bytes())
        return text

    Conversation(model.open(session), Sampling(max_tokens=2), session, line).run()

    said = capsys.readouterr().err
    assert said.count("Saved") == 2
    assert "was saved by another process" in said
    assert theirs == [session.read_bytes()]
    assert (tmp_path / "mine.allmem").exists()
