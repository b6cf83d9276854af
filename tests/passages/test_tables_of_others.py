"""A text file that keeps anything but our tables is refused, by whatever name it keeps it."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from text_files import LATER, change, journal_that_names, kill_writer, make_older

from allmem_runtime.errors import PassagesError
from allmem_runtime.passages import schema

OURS_AND_FTS5 = ("store", "passage", "vectors", "words", "words_data", "words_idx", "words_config",
                 "sqlite_autoindex_mark_1", "other")  # fmt: skip
TRIGGER = "CREATE TRIGGER {name} AFTER INSERT ON passage BEGIN DELETE FROM store; END"
ENDLESS = (
    "CREATE VIEW {name} AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) "
    "SELECT x AS passage, x AS made_by, x AS parts FROM c"
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "s.allmem.passages"
    schema.create(path, "one").close()
    schema.open_file(path).close()
    return path


@pytest.mark.parametrize("name", OURS_AND_FTS5)
def test_trigger_is_refused_whatever_its_name(text: Path, name: str) -> None:
    change(
        text,
        "INSERT INTO sqlite_master VALUES ('trigger', ?, 'passage', 0, ?)",
        name,
        TRIGGER.format(name=name),
    )
    with pytest.raises((PassagesError, *schema.FAILURES)):
        schema.open_file(text)


@pytest.mark.parametrize("name", ["words_config", "words_data", "vectors"])
def test_view_in_the_place_of_a_table_is_refused(text: Path, name: str) -> None:
    change(
        text,
        "UPDATE sqlite_master SET type = 'view', rootpage = 0, sql = ? WHERE name = ?",
        ENDLESS.format(name=name),
        name,
    )
    with pytest.raises((PassagesError, *schema.FAILURES)):
        schema.open_file(text)


def test_table_with_another_statement_is_refused(text: Path) -> None:
    change(text, "UPDATE sqlite_master SET sql = replace(sql, 'block BLOB', 'block AS (id)')")
    with pytest.raises((PassagesError, *schema.FAILURES)):
        schema.open_file(text)


def test_no_journal_makes_sqlite_delete_another_file(text: Path, tmp_path: Path) -> None:
    precious = tmp_path / "elsewhere" / "precious"
    precious.parent.mkdir()
    precious.write_bytes(b"kept\0")
    schema.journal(text).write_bytes(journal_that_names(text.read_bytes(), precious))
    with pytest.raises(PassagesError, match="-journal names another file"):
        schema.open_file(text)
    assert precious.read_bytes() == b"kept\0"


def test_journal_of_an_interrupted_writing_is_taken_back(text: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed.passages"
    kill_writer(text, killed)
    assert killed.stat().st_size > 50 * 5000
    with closing(schema.open_file(killed)) as connection:
        assert connection.execute("SELECT id FROM store").fetchall() == [("one",)]
    assert not schema.journal(killed).exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_in_the_place_of_a_text_or_its_journal_is_not_waited_for(text: Path) -> None:
    os.mkfifo(schema.journal(text))
    with pytest.raises(PassagesError, match="-journal is a link or no file"):
        schema.open_file(text)
    assert not schema.is_ours(schema.journal(text))


@pytest.mark.parametrize("version", LATER)
def test_text_of_a_version_before_is_read(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old"
    schema.create(path, "one").close()
    make_older(path, version)
    with closing(schema.open_file(path)) as connection:
        assert connection.execute("SELECT id FROM store").fetchall() == [("one",)]


def test_text_of_a_version_to_come_is_refused(text: Path) -> None:
    change(text, f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(PassagesError, match=f"has the version {schema.VERSION + 1}"):
        schema.open_file(text)
