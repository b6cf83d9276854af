"""A text that is missing, changed, locked or in the way: told once, and the state answers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import SHORT, Command
from teapot_book import QUESTION, SENTENCE, book, room
from toy_fixtures import toy_dir

from allmem_runtime import PassagesError
from allmem_runtime.files.header import read_header
from allmem_runtime.passages import schema
from allmem_runtime.passages.schema import beside
from allmem_runtime.passages.store import Store

__all__ = ["book", "room", "toy_dir"]


def test_fork_of_a_session_without_its_text_is_told(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session, fork = book.parent / "s.allmem", book.parent / "fork.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    beside(session).unlink()
    result = command("allmem", "fork", session, "--as", fork)
    assert result.code == 0
    assert "s.allmem.passages cannot be read" in result.err
    assert fork.exists()


def test_fork_of_a_damaged_session_leaves_no_text(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session, fork = book.parent / "s.allmem", book.parent / "fork.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    with session.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff\xff\xff")
    assert command("allmem", "fork", session, "--as", fork).code == 1
    assert not fork.exists()
    assert not beside(fork).exists()


def test_tampered_text_is_told_and_the_state_answers(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session = book.parent / "s.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    content = beside(session).read_bytes()
    assert b"blue teapot" in content
    beside(session).write_bytes(content.replace(b"blue teapot", b"red kettles"))
    result = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert result.code == 0 and result.out
    assert "was changed, or belongs to another session" in result.err
    assert "kettles" not in result.err
    result = command(
        "allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, "--json", *SHORT
    )
    assert len(result.of("text_failure")) == 1


def test_session_that_reads_on_without_its_text_says_so_and_forgets_it(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session, more = book.parent / "s.allmem", book.with_name("more.txt")
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    beside(session).unlink()
    more.write_text("More.")
    result = command("allmem-run", toy_dir, more, "--session", session, *SHORT)
    assert result.code == 0
    assert "cannot be read" in result.err
    assert "text_digest" not in read_header(session).metadata


def test_a_file_in_the_way_is_told_and_left(command: Command, toy_dir: Path, book: Path) -> None:
    session = book.parent / "s.allmem"
    beside(session).write_text("my notes " * 30)
    result = command(
        "allmem-run", toy_dir, book, "--session", session, "--prompt", QUESTION, *SHORT
    )
    assert result.code == 0 and result.out
    assert "is in the way of the session's text" in result.err
    assert beside(session).read_text() == "my notes " * 30


def test_a_text_that_fails_in_the_middle_is_told_once(
    command: Command, toy_dir: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise PassagesError("The text is locked now.")

    monkeypatch.setattr(Store, "matches", broken)
    result = command(
        "allmem-run", toy_dir, book, "--prompt", QUESTION, "--prompt", QUESTION, "--json", *SHORT
    )
    assert [event["message"] for event in result.of("text_failure")] == ["The text is locked now."]
    assert [answer["passages"] for answer in result.of("answer")] == [[], []]


@contextmanager
def locked(session: Path) -> Iterator[None]:
    """While another process writes to the text."""
    other = sqlite3.connect(beside(session), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "BUSY_SECONDS", 0.1)
        yield
    other.close()


@pytest.mark.parametrize(
    "asked",
    [
        ("--prompt", QUESTION, "--prompt", QUESTION),
        ("--prompt", QUESTION, "--meter"),
        ("more.txt",),
        ("more.txt", "--prompt", QUESTION, "--meter"),
    ],
)
def test_a_locked_text_is_told_once(
    command: Command, toy_dir: Path, book: Path, asked: tuple[str, ...]
) -> None:
    session, more = book.with_name("s.allmem"), book.with_name("more.txt")
    more.write_text("Then it rained for a week.\n")
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    arguments = [more if word == more.name else word for word in asked]
    with locked(session):
        result = command("allmem-run", toy_dir, *arguments, "--session", session, *SHORT)
    assert result.err.count("database is locked") == 1
    assert result.err.count("answered from the state alone") == 1
    assert ("Reading on would give the text up" in result.err) == (more in arguments)


def test_reading_on_does_not_give_up_a_text_that_is_only_locked(
    command: Command, toy_dir: Path, book: Path, tmp_path: Path
) -> None:
    session, more = tmp_path / "s.allmem", tmp_path / "more.txt"
    more.write_text("Then it rained for a week.\n")
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    before = session.read_bytes()
    arguments = (toy_dir, more, "--session", session, *SHORT)
    with locked(session):
        refused = command("allmem-run", *arguments)
        assert refused.code == 1 and "locked" in refused.err and "--no-text" in refused.err
        assert session.read_bytes() == before
        asked = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
        assert asked.code == 0 and "locked" in asked.err

    assert command("allmem-run", *arguments).code == 0
    again = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert f"book.txt:119  {SENTENCE}" in again.err
