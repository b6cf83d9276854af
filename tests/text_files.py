"""Files of a session's text as other versions, other processes and strangers leave them."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from allmem_runtime.passages import schema

LATER = {1: ("vectors", "region"), 2: ("region",), 3: (), schema.VERSION: ()}
"""Tables that a version does not have yet."""


def change(path: Path, statement: str, *values: object) -> None:
    """Execute one statement, past SQLite's own guard of its list of tables."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(statement, values)


def make_older(path: Path, version: int) -> None:
    """Turn a text of the present version into one of a version before."""
    for table in LATER[version]:
        change(path, f"DROP TABLE {table}")
    change(path, f"PRAGMA user_version = {version}")


def kill_writer(path: Path, killed: Path) -> None:
    """Copy a text with its journal as they lie on the disk in the midst of a writing."""
    with closing(schema.open_file(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = 1")  # pages are written before the end
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO store VALUES (?)", [("x" * 5000,)] * 50)
        shutil.copyfile(path, killed)
        shutil.copyfile(schema.journal(path), schema.journal(killed))


def journal_that_names(text: bytes, other: Path) -> bytes:
    """A journal that changes nothing, of a writing in which another file has a part.

    Source: ``readSuperJournal`` in https://github.com/sqlite/sqlite/blob/master/src/pager.c
    """
    page, pages = int.from_bytes(text[16:18], "big"), int.from_bytes(text[28:32], "big")
    magic = bytes.fromhex("d9d505f920a163d7")
    name = str(other).encode()
    begin = magic + struct.pack(">5I", 0, 1234, pages, 512, page)
    end = struct.pack(">I", (1 << 30) // page + 1) + name
    return begin.ljust(512, b"\0") + end + struct.pack(">2I", len(name), sum(name)) + magic
