"""The text beside a saved session: with it after a kill, missing, changed or not writable."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from session_tools import SHORT, assert_same, read
from teapot_book import BOOK, QUESTION, reader, room

from allmem_runtime import Model
from allmem_runtime.passages.schema import beside

__all__ = ["room"]


def test_saved_session_has_its_text_beside_it(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK, name="book.txt")
    session.save(path)
    assert stat.S_IMODE(beside(path).stat().st_mode) == 0o600

    opened = toy.open(path)

    assert opened.text_failure == ""
    assert opened.answer(QUESTION).passages == session.answer(QUESTION).passages != ()
    read(opened, "Mr. Lind sold the boat.", name="more.txt")
    opened.save(path)
    (passage, *_) = toy.open(path).answer("What did Mr. Lind sell?", passages=1).passages
    assert str(passage.place) == "more.txt:1"


def test_interrupted_reading_goes_on_in_session_and_text_alike(toy: Model, tmp_path: Path) -> None:
    path, whole = tmp_path / "s.allmem", tmp_path / "whole.allmem"
    uninterrupted = read(toy.session(text=whole), BOOK, name="book.txt")
    session = toy.session(text=path)
    for step in session.ingest(BOOK, name="book.txt"):
        if step.position > 3000:
            session.cancel()
    session.save(path)
    # It reads on and is killed after the text, before the session, was saved.
    ahead = toy.open(path)
    read(ahead, BOOK.encode()[ahead.source_offset :], name="book.txt")
    assert ahead.text is not None
    ahead.text.save(ahead.text_digest, path)

    again = toy.open(path)
    assert again.text_failure == ""
    assert again.position < ahead.position
    read(again, BOOK.encode()[again.source_offset :], name="book.txt")

    question = "On which day did 57 gulls sit on the wall?"
    assert again.answer(question).passages == uninterrupted.answer(question).passages != ()


def test_text_behind_what_was_read_has_its_place_though_another_was_read_between(
    toy: Model, tmp_path: Path
) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK, name="book.txt")
    known = session.source
    read(session, "Old Mr. Lind sold the boat.", name="other.txt")
    session.save(path)
    again = toy.open(path)
    read(again, "\nThe zeppelin landed in Bergen.\n", mark=known)
    again.save(path)

    opened = toy.open(path)
    assert opened.text_failure == ""
    (passage, *_) = opened.find_passages("Where did the zeppelin land?", 1)
    assert str(passage.sentence_place) == f"book.txt:{BOOK.count(chr(10)) + 2}"
    assert passage.sentence_place.character == len(BOOK) + 1
    (passage, *_) = opened.find_passages("What did Mr. Lind sell?", 1)
    assert str(passage.place) == "other.txt:1"


def test_missing_and_changed_text_is_told_and_the_state_answers(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK)
    session.save(path)
    file = beside(path)
    content = file.read_bytes()
    for broken in (None, content.replace(b"blue teapot", b"red teapots"), content[:4096], b"x"):
        file.unlink()
        if broken is not None:
            file.write_bytes(broken)
        opened = toy.open(path)
        assert file.name in opened.text_failure
        assert opened.answer(QUESTION, sampling=SHORT).passages == ()
        file.write_bytes(content)
    # What it knew of its text is saved with it: the right file still fits.
    opened.save(path)
    assert toy.open(path).answer(QUESTION, passages=1).passages != ()


def test_reading_on_without_the_text_ends_it(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    read(toy.session(text=path), BOOK).save(path)
    opened = toy.open(path, text=False)
    read(opened, "More.")
    opened.save(path)
    opened = toy.open(path)
    assert (opened.text_digest, opened.text) == ("", None)


def test_text_that_cannot_be_written_ends_no_reading(
    toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.allmem"
    beside(path).write_text("some notes of mine, no text of a session; " * 4)
    session = read(toy.session(text=path), BOOK, name="book.txt")
    assert "in the way" in session.text_failure
    session.save(path)
    assert_same(toy.open(path), read(toy.session(), BOOK, name="book.txt"))
    assert session.answer(QUESTION, sampling=SHORT).passages == ()


def test_state_is_the_same_with_and_without_the_text(toy: Model) -> None:
    kept = reader(toy)
    assert kept.text_digest
    kept._cursor.place.text = ""
    assert_same(kept, read(toy.session(), BOOK, name="book.txt"))
