"""Folders and logs that are followed: what is new is read and asked about, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import document_samples as samples
import pytest
from commands import Command, finished, process, until
from toy_fixtures import toy_dir as toy_dir

from allmem_runtime.documents import watcher as watching
from allmem_runtime.documents.watcher import Watcher
from allmem_runtime.files import snapshot

SHORT = ("--device", "cpu", "--threads", "1", "--operators", "portable", "--max-tokens", "2")


def looked(watcher: Watcher) -> list[str]:
    return [item.name for item in watcher.changed()]


def test_what_is_new_or_changed_is_taken_once_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n")
    watcher = Watcher([str(tmp_path)], 0.01)
    assert looked(watcher) == []
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("Two.\n")
    assert looked(watcher) == []
    (tmp_path / "deep" / "b.txt").write_text("Two and more.\n")
    assert looked(watcher) == []
    assert looked(watcher) == ["deep/b.txt"]
    assert looked(watcher) == []
    (tmp_path / "a.txt").unlink()
    assert looked(watcher) == [] and watcher.gone == [str(tmp_path / "a.txt")]
    assert looked(watcher) == [] and watcher.gone == []


@pytest.mark.parametrize(
    ("name", "begins", "taken"), [("a.log", b"", True), ("a.pdf", b"%PDF-", False)]
)
def test_a_log_that_never_stays_is_read_all_the_same_and_a_document_is_not(
    tmp_path: Path, name: str, begins: bytes, taken: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(begins + b"It begins.\n")
    watcher = Watcher([str(path)], 0.01)
    found = []
    for number in range(watching.MOST_LOOKS + 1):
        with path.open("ab") as file:
            file.write(b"Line %d.\n" % number)
        found += looked(watcher)
    assert found == [name] * taken


def test_a_folder_is_followed_until_ctrl_c(command: Command, toy_dir: Path, tmp_path: Path) -> None:
    notes, session = tmp_path / "notes", tmp_path / "s.allmem"
    notes.mkdir()
    (notes / "a.log").write_text("The mill was sold in May.\n")
    arguments = (toy_dir, notes, "--session", session, "--watch", "--pause", "0.2",
                 "--prompt", "Who has the keys of the boathouse?", "--json", *SHORT)  # fmt: skip
    running = process("allmem-run", *arguments)
    until(running, "watching")
    (notes / "b.pdf.part").write_bytes(samples.pdf([["Nothing."], [samples.STORY[1]]]))
    os.rename(notes / "b.pdf.part", notes / "b.pdf")
    until(running, "answer")
    with (notes / "a.log").open("a") as log:
        log.write("It was bought again in June.\n")
    told = str(until(running, "answer"))
    running.send_signal(signal.SIGINT)
    result = finished(running)
    assert result.code == 130
    assert samples.STORY[1] in told and "b.pdf" in told
    marks = snapshot.read_header(session).place(1 << 20).sources
    assert [(mark.name, mark.finished) for mark in marks] == [("b.pdf", True), ("a.log", True)]
    assert marks[1].offset == (notes / "a.log").stat().st_size
    again = command("allmem-run", toy_dir, notes, "--session", session, "--json", *SHORT[:-2],
                    "--prompt", "Hm?", "--max-tokens", "1")  # fmt: skip
    assert {each["state"] for each in again.of("sources")[0]["sources"]} == {"unchanged"}


@pytest.mark.parametrize("arguments", [["-"], [], ["--stream"], ["a.txt", "--stream"]])
def test_what_cannot_be_followed_is_refused(
    command: Command, toy_dir: Path, arguments: list[str]
) -> None:
    result = command("allmem-run", toy_dir, *arguments, "--watch", "--prompt", "Hm?")
    assert result.code == 2 and "--watch follows files, folders and patterns." in result.err


def test_a_file_that_is_taken_away_while_it_is_read_keeps_no_other_from_being_read(
    toy_dir: Path, tmp_path: Path
) -> None:
    notes, session = tmp_path / "notes", tmp_path / "s.allmem"
    notes.mkdir()
    (notes / "a.txt").write_text("The mill was sold in May.\n")
    arguments = (toy_dir, notes, "--session", session, "--watch", "--pause", "0.2",
                 "--prompt", "Who has the keys?", "--json", *SHORT)  # fmt: skip
    running = process("allmem-run", *arguments)
    patience = threading.Timer(50, running.kill)
    patience.start()
    until(running, "watching")
    for name, text in (("beside.txt", "It lies beside.\n"), ("b.part", "A long log.\n" * 800_000)):
        (tmp_path / name).write_text(text)
    os.rename(tmp_path / "beside.txt", notes / "beside.txt")
    os.rename(tmp_path / "b.part", notes / "b.log")
    until(running, "reading")
    os.truncate(notes / "b.log", 100)
    (notes / "b.log").unlink()
    until(running, "answer")
    (notes / "c.txt").write_text("It was bought again in June.\n")
    until(running, "answer")
    running.send_signal(signal.SIGINT)
    finished(running)
    patience.cancel()
    marks = snapshot.read_header(session).place(1 << 20).sources
    assert [(mark.name, mark.finished) for mark in marks] == [
        ("a.txt", True), ("b.log", False), ("beside.txt", True), ("c.txt", True)
    ]  # fmt: skip
