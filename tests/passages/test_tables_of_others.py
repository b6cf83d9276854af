"""A text file that keeps anything but our tables is refused, by whatever name it keeps it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

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


def change(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(statement, values)


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


@pytest.mark.parametrize(
    ("version", "later"), [(1, ["vectors", "region"]), (2, ["region"]), (3, [])]
)
def test_text_of_a_version_before_is_read(tmp_path: Path, version: int, later: list[str]) -> None:
    path = tmp_path / "old"
    schema.create(path, "one").close()
    for table in later:
        change(path, f"DROP TABLE {table}")
    change(path, f"PRAGMA user_version = {version}")
    with closing(schema.open_file(path)) as connection:
        assert connection.execute("SELECT id FROM store").fetchall() == [("one",)]
