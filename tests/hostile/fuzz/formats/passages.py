"""The text beside a session: its tables changed by SQL, or the file or its journal as bytes."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import MODEL, load_toy, write_toy
from hostile.fuzz.mutate_bytes import mutated_bytes
from session_tools import DOCUMENT
from text_files import LATER, journal_that_names, kill_writer, make_older

from allmem_runtime import Sampling
from allmem_runtime.errors import PassagesError
from allmem_runtime.info import session_info, session_lines
from allmem_runtime.passages.files import copy_text
from allmem_runtime.passages.schema import VERSION, journal

SESSION = "s.allmem"
FILE = f"{SESSION}.passages"
_JOURNAL = journal(Path(FILE)).name
_KILLED = "killed"
_COLUMNS = {
    "store": ("id",),
    "source": ("id", "name"),
    "mark": ("id", "source", "bytes", "start", "characters", "first", "tokens", "digest"),
    "passage": ("id", "source", "start", "line", "token", "text"),
    "words_data": ("id", "block"),
    "words_docsize": ("id", "sz"),
    "words_config": ("k", "v"),
    "region": ("source", "start", "page", "chapter"),
    "vectors": ("passage", "made_by", "parts"),
}
_SCHEMA = (
    "('trigger', '{name}', '{table}', 0, 'CREATE TRIGGER {name} AFTER INSERT ON {table} "
    "BEGIN DELETE FROM passage; END')",
    "('view', '{name}', '{name}', 0, 'CREATE VIEW {name} AS WITH RECURSIVE c(x) AS (SELECT 1 UNION "
    "ALL SELECT x FROM c) SELECT x AS passage, x AS parts, x AS made_by FROM c')",
    "('table', '{name}', '{name}', {page}, 'CREATE TABLE {name}(id, x AS (random()))')",
    "('index', '{name}', '{table}', {page}, 'CREATE INDEX {name} ON {table}(abs(id))')",
)
"""Rows for SQLite's list of what a file holds, past its own checks."""
_VALUES = ("0", "-1", "1", "NULL", "9223372036854775807", "1e300", "'x'", "''", "x'ff00fe'",
           "zeroblob(70000)", "hex(zeroblob(5000))", "char(0)", "char(55296)",
           "CAST(x'ff' AS TEXT)",
           "{column} + 1", "{column} * 1000", "CAST({column} AS TEXT)", "CAST({column} AS BLOB)",
           "{column} || 'x'",
           "randomblob(64)", "randomblob(63)", "zeroblob(64)", "zeroblob(6400)", "x''",
           "{column} || {column}", "zeroblob(3000000)", "-{column}", "{column} + 0.5",
           "9e999")  # fmt: skip


def _make(folder: Path) -> None:
    write_toy(folder / MODEL)
    session = load_toy(folder / MODEL).session(text=folder / SESSION)
    for _ in session.ingest(DOCUMENT[:4000], name="story.txt"):
        pass
    session.save(folder / SESSION)
    kill_writer(folder / FILE, folder / _KILLED)


def _mutate(files: Files, draw: Random) -> Files:
    data = files[FILE]
    if draw.random() < 0.1:
        return _interrupted(files, draw)
    if draw.random() < 0.4:
        return {FILE: mutated_bytes(data, draw, draw.choice((100, 4096)))}
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "text"
        path.write_bytes(data)
        if draw.random() < 0.3:
            _make_older(path, draw)
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            for _ in range(draw.choice((1, 1, 2))):
                connection.execute("PRAGMA writable_schema = ON")
                connection.execute(_statement(draw))
        except sqlite3.Error:
            return {FILE: mutated_bytes(data, draw, 4096)}
        finally:
            connection.close()
        return {FILE: path.read_bytes()}


def _interrupted(files: Files, draw: Random) -> Files:
    """A text in the midst of a writing, whose journal is spoiled."""
    log = files[journal(Path(_KILLED)).name]
    if draw.random() < 0.2:
        log = log[: draw.choice((0, 512, len(log)))] + journal_that_names(
            files[_KILLED], Path(draw.choice((SESSION, FILE, "/nowhere", "x" * 5000)))
        )
    if draw.random() < 0.9:
        log = mutated_bytes(log, draw, draw.choice((64, 4096)))
    return {FILE: draw.choice((files[FILE], files[_KILLED])), _JOURNAL: log}


def _make_older(path: Path, draw: Random) -> None:
    with contextlib.suppress(sqlite3.Error):  # it was spoiled before
        make_older(path, draw.choice(list(LATER)))


def _statement(draw: Random) -> str:
    table = draw.choice(list(_COLUMNS))
    column = draw.choice(_COLUMNS[table])
    value = draw.choice(_VALUES).format(column=column)
    one = f"rowid = (SELECT rowid FROM {table} ORDER BY rowid LIMIT 1 OFFSET {draw.randrange(8)})"
    if table.startswith("words_config"):
        one = "1"
    return draw.choice(
        (f"UPDATE {table} SET {column} = {value} WHERE {one}",
         f"UPDATE {table} SET {column} = {value}",
         f"DELETE FROM {table} WHERE {one}",
         f"PRAGMA user_version = {draw.randrange(VERSION + 2)}",
         f"UPDATE sqlite_master SET rootpage = {draw.randrange(30)} WHERE rowid = "
         f"{draw.randrange(12)}",
         f"INSERT INTO sqlite_master VALUES {_schema(draw, table)}",
         f"INSERT INTO vectors VALUES ({draw.randrange(-1, 99)}, 'x', {value})",
         f"DROP TABLE {table}",
         f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN SELECT 1; END")
    )  # fmt: skip


def _schema(draw: Random, table: str) -> str:
    name = draw.choice(("words_data", "words_config", "vectors", "sqlite_autoindex_mark_1", "t"))
    return draw.choice(_SCHEMA).format(name=name, table=table, page=draw.randrange(2, 20))


def _reader(good: Path) -> Read:
    model = load_toy(good / MODEL)
    at = model.open(good / SESSION).text_digest

    def read(folder: Path) -> None:
        path = folder / SESSION
        "\n".join(session_lines(session_info(path)))
        copy_text(path, folder / "fork.allmem", at)
        session = model.open(path)
        session.answer("Who has the key of the boathouse?", sampling=Sampling(max_tokens=2))
        for _ in session.ingest("More about the key of the boathouse.\n", new_source=True):
            pass
        session.answer("Where is the key?", sampling=Sampling(max_tokens=2))
        if session.text_failure:
            raise PassagesError(session.text_failure)  # told to the user as a notice
        session.save(folder / "again.allmem")

    return read


FORMAT = Format("passages", _make, _mutate, _reader)
