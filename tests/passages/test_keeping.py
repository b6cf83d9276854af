"""The text beside a session: in step with it, whatever is killed, taken back, forked or changed."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from passage_tools import Reader

from allmem_runtime import PassagesError, StorageError
from allmem_runtime.passages.keeping import BATCH_CHARACTERS, Text
from allmem_runtime.passages.schema import beside

STORY = "".join(
    f"On day {day} the keeper of the lighthouse counted {day * 7} ships. The wind was fair, and "
    f"his brother wrote that {day} boats had left the harbor.\n\n"
    for day in range(1, 120)
)


def content(path: Path) -> list[tuple[object, ...]]:
    """All rows of a text file, but its own name."""
    connection = sqlite3.connect(path)
    tables = [
        connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
        for table in ("source", "passage")
    ]
    words = connection.execute("SELECT rowid FROM words WHERE words MATCH 'lighthous'").fetchall()
    marks = connection.execute("SELECT source, bytes, start, tokens FROM mark ORDER BY id")
    found = [*tables, words, marks.fetchall()]
    connection.close()
    # Numbers of rows may have gaps where passages were cut anew.
    return [found[0], [row[1:] for row in found[1]], len(found[2]), found[3]]


def saved(folder: Path, name: str = "s.allmem") -> tuple[Path, Reader]:
    session = folder / name
    reader = Reader(Text.beside(session, ""))
    reader.read(STORY)
    reader.text.save(reader.at, session)
    return session, reader


def whole_text(text: Text, at: str) -> str:
    return "".join(row.text for row in text.rows(at))


def test_text_lies_beside_the_session_for_its_owner_alone(tmp_path: Path) -> None:
    session, reader = saved(tmp_path)
    file = beside(session)
    assert file.name == "s.allmem.passages"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert whole_text(Text.beside(session, reader.at), reader.at) == STORY
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_nothing_is_written_before_anything_is_read(tmp_path: Path) -> None:
    Text.beside(tmp_path / "s.allmem", "").save("", tmp_path / "s.allmem")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [1, 3000, 9000, 15000])
def test_reading_goes_on_from_any_save_as_if_never_interrupted(tmp_path: Path, stop: int) -> None:
    whole, _ = saved(tmp_path, "whole.allmem")
    session = tmp_path / "s.allmem"
    reader = Reader(Text.beside(session, ""))
    offset = reader.read(STORY, stop=stop)
    reader.text.save(reader.at, session)
    at, token = reader.at, reader.token
    # More is read and written, and the process is killed before the session is saved.
    reader.read(STORY, start=offset)
    reader.text.save(reader.at, session)

    again = Reader(Text.beside(session, at), at)
    again.token = token
    if at:
        assert whole_text(again.text, at) == STORY[:offset]
    again.read(STORY, start=offset)
    again.text.save(again.at, session)

    assert content(beside(session)) == content(beside(whole))
    assert whole_text(Text.beside(session, again.at), again.at) == STORY


def test_session_can_be_taken_back(tmp_path: Path) -> None:
    session = tmp_path / "s.allmem"
    reader = Reader(Text.beside(session, ""))
    offset = reader.read(STORY, stop=7000)
    at, token = reader.at, reader.token
    reader.read(STORY, start=offset)
    reader.read("Another source.", "other.txt")

    reader.at, reader.token = at, token
    reader.read("Something else came.", "third.txt")

    assert whole_text(reader.text, reader.at) == STORY[:offset] + "Something else came."
    reader.text.save(reader.at, session)
    assert whole_text(Text.beside(session, reader.at), reader.at).endswith("else came.")


def test_sources_are_cut_apart_and_named(tmp_path: Path) -> None:
    session = tmp_path / "s.allmem"
    reader = Reader(Text.beside(session, ""))
    for number in range(3):
        reader.read(f"Source {number} is short.", f"{number}.txt")
    reader.text.save(reader.at, session)
    text = Text.beside(session, reader.at)
    rows = list(text.rows(reader.at))
    assert [text._name(row.source) for row in rows] == ["0.txt", "1.txt", "2.txt"]
    assert [(row.start, row.line) for row in rows] == [(0, 1)] * 3
    assert [row.token for row in rows] == [0, 4, 8]


def test_more_than_a_batch_is_written_on_the_way(tmp_path: Path) -> None:
    session = tmp_path / "s.allmem"
    reader = Reader(Text.beside(session, ""))
    long = STORY * (2 * BATCH_CHARACTERS // len(STORY))
    reader.read(long)
    assert beside(session).stat().st_size > BATCH_CHARACTERS
    assert whole_text(reader.text, reader.at) == long


def test_what_a_fork_reads_is_its_own(tmp_path: Path) -> None:
    session, reader = saved(tmp_path)
    fork = Reader(reader.text.fork(), reader.at)
    before = beside(session).read_bytes()
    assert whole_text(fork.text, fork.at) == STORY

    fork.read(STORY + "And the last.", start=len(STORY))  # goes on in the same source
    fork.read("What the fork alone has read.", "fork.txt")
    again = Reader(fork.text.fork(), fork.at)
    again.read("A fork of the fork.", "again.txt")

    own = STORY + "And the last.What the fork alone has read."
    assert beside(session).read_bytes() == before
    assert whole_text(reader.text, reader.at) == STORY
    assert whole_text(fork.text, fork.at) == own
    assert whole_text(again.text, again.at) == own + "A fork of the fork."
    for number, (text, at, expected) in enumerate(
        [(fork.text, fork.at, own), (again.text, again.at, own + "A fork of the fork.")]
    ):
        path = tmp_path / f"fork{number}.allmem"
        text.save(at, path)
        assert whole_text(Text.beside(path, at), at) == expected
    names = [name for _, name in again.text._levels(again.at)[-1].store.sources()]
    assert names == ["fork.txt", "again.txt"]


def test_fork_can_be_saved_in_place_of_its_session_and_both_go_on(tmp_path: Path) -> None:
    session, reader = saved(tmp_path)
    fork = Reader(reader.text.fork(), reader.at)
    fork.read("More.", "fork.txt")
    for _ in range(2):
        fork.text.save(fork.at, session)
        assert whole_text(Text.beside(session, fork.at), fork.at) == STORY + "More."

    reader.read("Else.", "else.txt")
    reader.text.save(reader.at, session)

    assert whole_text(Text.beside(session, reader.at), reader.at) == STORY + "Else."
    assert whole_text(fork.text, fork.at) == STORY + "More."


def test_fork_can_be_taken_back(tmp_path: Path) -> None:
    _, reader = saved(tmp_path)
    fork = Reader(reader.text.fork(), reader.at)
    fork.read("One.", "one.txt")
    one = fork.at
    fork.read("Two.", "two.txt")
    fork.at = one
    fork.read("Three.", "three.txt")
    assert whole_text(fork.text, fork.at) == STORY + "One.Three."
    fork.at = reader.at
    fork.read("Four.", "four.txt")
    assert whole_text(fork.text, fork.at) == STORY + "Four."


def test_saving_elsewhere_copies_the_text(tmp_path: Path) -> None:
    session, reader = saved(tmp_path)
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / "t.allmem"
    reader.text.save(reader.at, other)
    assert content(beside(other)) == content(beside(session))
    assert stat.S_IMODE(beside(other).stat().st_mode) == 0o600
    assert [path.name for path in other.parent.iterdir()] == [beside(other).name]


def test_text_without_a_session_file_is_temporary_until_it_is_saved(tmp_path: Path) -> None:
    reader = Reader(Text(None))
    reader.read(STORY)
    assert whole_text(reader.text, reader.at) == STORY
    reader.text.save(reader.at, tmp_path / "s.allmem")
    reader.read("More.", "more.txt")
    reader.text.save(reader.at, tmp_path / "s.allmem")
    assert whole_text(Text.beside(tmp_path / "s.allmem", reader.at), reader.at) == STORY + "More."


def change(session: Path, statement: str) -> None:
    connection = sqlite3.connect(beside(session))
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE passage SET text = replace(text, '49 ships', '50 ships')",
        "UPDATE passage SET line = line + 1 WHERE id = 3",
        "UPDATE passage SET token = token + 1 WHERE id = 3",
        "UPDATE passage SET text = '' WHERE id = 3",
        "DELETE FROM passage WHERE id = 3",
        "DELETE FROM passage WHERE id = (SELECT max(id) FROM passage)",
        "DELETE FROM mark WHERE id = 2",
        "UPDATE mark SET tokens = tokens + 1 WHERE id = 2",
        "UPDATE mark SET bytes = bytes + 1 WHERE id = 2",
        "UPDATE source SET name = 'another.txt'",
        "UPDATE store SET id = 'another'",
        "UPDATE store SET id = x'00ff'",
        "DELETE FROM store",
        "UPDATE mark SET bytes = x'00ff'",
        "UPDATE passage SET text = CAST('x' AS BLOB) WHERE id = 3",
        "UPDATE passage SET start = 'x' WHERE id = 3",
        "UPDATE mark SET tokens = 'many' WHERE id = 2",
        "UPDATE mark SET characters = 1e300 WHERE id = 2",
        "INSERT INTO passage SELECT id + 1000, source, start, line, token, text FROM passage",
    ],
)
def test_changed_text_is_refused(tmp_path: Path, statement: str) -> None:
    session, reader = saved(tmp_path)
    change(session, statement)
    with pytest.raises(PassagesError, match="changed, or belongs to another|is damaged"):
        Text.beside(session, reader.at)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON mark BEGIN DELETE FROM passage; END",
        "CREATE VIEW v AS SELECT load_extension('x')",
        "ALTER TABLE source ADD COLUMN more TEXT",
        "PRAGMA user_version = 9",
        "PRAGMA application_id = 9",
    ],
)
def test_tables_other_than_ours_are_refused(tmp_path: Path, statement: str) -> None:
    session, reader = saved(tmp_path)
    change(session, statement)
    with pytest.raises(PassagesError):
        Text.beside(session, reader.at)


def test_missing_foreign_and_damaged_texts_are_refused(tmp_path: Path) -> None:
    session, reader = saved(tmp_path)
    other, _ = saved(tmp_path, "other.allmem")
    file = beside(session)

    own = file.read_bytes()
    file.write_bytes(beside(other).read_bytes())
    with pytest.raises(PassagesError, match="another session"):
        Text.beside(session, reader.at)
    for damaged in (
        b"",
        b"SQLite format 3\0",
        own[:5000],
        own[:100] + b"\xff" * (len(own) - 100),
        own.replace(b"CREATE TABLE store", b"CRE\x8dTE TABLE store"),  # SQLite's error quotes it
    ):
        file.write_bytes(damaged)
        with pytest.raises(PassagesError):
            Text.beside(session, reader.at)
    file.unlink()
    with pytest.raises(PassagesError, match="No such file"):
        Text.beside(session, reader.at)
    file.symlink_to(beside(other))
    with pytest.raises(PassagesError, match="link"):
        Text.beside(session, reader.at)


def test_locked_text_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allmem_runtime.passages.schema.BUSY_SECONDS", 0.05)
    session, reader = saved(tmp_path)
    other = sqlite3.connect(beside(session), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(PassagesError, match="locked"):
        Text.beside(session, reader.at)
    other.execute("ROLLBACK")
    assert whole_text(Text.beside(session, reader.at), reader.at) == STORY


def test_a_file_that_is_no_text_is_not_replaced(tmp_path: Path) -> None:
    session = tmp_path / "s.allmem"
    beside(session).write_text("my own notes, longer than the head of a database " * 3)
    with pytest.raises(StorageError, match="in the way"):
        Reader(Text.beside(session, "")).read(STORY)
    with pytest.raises(StorageError, match="in the way"):
        other, reader = saved(tmp_path, "other.allmem")
        reader.text.save(reader.at, session)
    assert beside(session).read_text().startswith("my own notes")


def test_what_an_earlier_session_left_is_replaced(tmp_path: Path) -> None:
    session, _ = saved(tmp_path)
    reader = Reader(Text.beside(session, ""))
    reader.read("All new.")
    reader.text.save(reader.at, session)
    assert whole_text(Text.beside(session, reader.at), reader.at) == "All new."


def test_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    session, reader = saved(tmp_path)
    at = reader.at
    store = reader.text._store
    assert store is not None
    pages = store._one("PRAGMA page_count")[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        reader.read(STORY * 40, "more.txt")
    assert whole_text(Text.beside(session, at), at) == STORY


def test_a_killed_writing_is_rolled_back(tmp_path: Path) -> None:
    session, reader = saved(tmp_path)
    code = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1')\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute(\"UPDATE passage SET text = 'gone' || text\")\n"
        "os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(beside(session))], check=False)
    assert done.returncode == 9
    assert os.path.exists(f"{beside(session)}-journal")
    assert whole_text(Text.beside(session, reader.at), reader.at) == STORY
