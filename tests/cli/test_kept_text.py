"""The text beside a session file: kept, told, copied and deleted with it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from commands import SHORT, Command
from teapot_book import QUESTION, SENTENCE, book, room
from toy_fixtures import toy_dir

from allmem_runtime.passages.schema import beside

__all__ = ["book", "room", "toy_dir"]


def test_text_lies_beside_the_session_and_is_found_after_resuming(
    command: Command, toy_dir: Path, book: Path
) -> None:
    session = book.parent / "s.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    assert stat.S_IMODE(beside(session).stat().st_mode) == 0o600

    result = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert f"book.txt:119  {SENTENCE}" in result.err

    more = book.with_name("more.txt")
    more.write_text("Old Mr. Lind sold the boat to a dentist.")
    result = command(
        "allmem-run", toy_dir, book, more, "--session", session,
        "--prompt", "To whom did Mr. Lind sell the boat?", "--prompt", QUESTION, *SHORT,
    )  # fmt: skip
    assert "more.txt:1  Old Mr. Lind sold the boat to a dentist." in result.err
    assert f"book.txt:119  {SENTENCE}" in result.err


def test_no_text_keeps_none(command: Command, toy_dir: Path, book: Path) -> None:
    session = book.parent / "s.allmem"
    result = command(
        "allmem-run", toy_dir, book, "--session", session, "--prompt", QUESTION, "--no-text", *SHORT
    )
    assert not beside(session).exists()
    assert "book.txt:119" not in result.err
    assert "state alone" not in result.err
    # Begun without, it goes on without.
    result = command("allmem-run", toy_dir, "--session", session, "--prompt", QUESTION, *SHORT)
    assert not beside(session).exists()
    assert json.loads(command("allmem", "info", session, "--json").out)["text"] is None


def test_without_a_file_and_a_session_no_text_is_kept(
    command: Command, toy_dir: Path, book: Path
) -> None:
    result = command(
        "allmem-run", toy_dir, "-", "--prompt", QUESTION, "--json", *SHORT,
        stdin=book.read_bytes(),
    )  # fmt: skip
    assert result.of("answer")[0]["passages"] == []


def test_info_tells_the_text(command: Command, toy_dir: Path, book: Path) -> None:
    session = book.parent / "s.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    info = json.loads(command("allmem", "info", session, "--json").out)["text"]
    assert info["path"] == str(beside(session))
    assert info["bytes"] == beside(session).stat().st_size
    assert info["characters"] == len(book.read_text())
    assert info["sources"] == ["book.txt"]
    assert "s.allmem.passages" in command("allmem", "info", session).out
    beside(session).unlink()
    assert "No such file" in command("allmem", "info", session).out


def test_fork_copies_the_text(command: Command, toy_dir: Path, book: Path) -> None:
    session, fork = book.parent / "s.allmem", book.parent / "fork.allmem"
    command("allmem-run", toy_dir, book, "--session", session, *SHORT)
    assert command("allmem", "fork", session, "--as", fork).code == 0
    assert stat.S_IMODE(beside(fork).stat().st_mode) == 0o600
    session.unlink()
    beside(session).unlink()
    result = command("allmem-run", toy_dir, "--session", fork, "--prompt", QUESTION, *SHORT)
    assert f"book.txt:119  {SENTENCE}" in result.err


def test_deleting_a_session_deletes_its_text_and_nothing_else(
    command: Command, toy_dir: Path, book: Path, tmp_path: Path
) -> None:
    session, other = tmp_path / "s.allmem", tmp_path / "other.allmem"
    for path in (session, other):
        command("allmem-run", toy_dir, book, "--session", path, *SHORT)
    before = {path.name for path in tmp_path.iterdir()}
    result = command("allmem", "delete", session)
    assert result.code == 0 and "is deleted" in result.err
    assert before - {p.name for p in tmp_path.iterdir()} == {session.name, beside(session).name}

    foreign = beside(other)
    foreign.unlink()
    foreign.write_text("somebody's notes")
    assert command("allmem", "delete", other).code == 0
    assert not other.exists() and foreign.read_text() == "somebody's notes"


def test_what_is_no_session_is_not_deleted(command: Command, book: Path, tmp_path: Path) -> None:
    for path in (book, tmp_path / "none.allmem"):
        result = command("allmem", "delete", path)
        assert result.code == 1 and path.name in result.err
    assert book.exists()


def test_a_link_to_a_session_stands_for_the_session(
    command: Command, tiny_model_dir: Path, book: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    session, link = folder / "s.allmem", tmp_path / "link.allmem"
    link.symlink_to(session)
    other = tmp_path / "other.txt"
    other.write_text("The ferry leaves at six.\n")
    for source in (book, other):
        read = command("allmem-run", tiny_model_dir, source, "--session", link, *SHORT)
        assert read.code == 0 and "state alone" not in read.err
    assert link.is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == ["s.allmem", "s.allmem.passages"]
    values = json.loads(command("allmem", "info", link, "--json").out)
    assert values["text"]["sources"] == [book.name, other.name]
    assert command("allmem", "delete", link).code == 0
    assert list(folder.iterdir()) == [] and not link.is_symlink()
