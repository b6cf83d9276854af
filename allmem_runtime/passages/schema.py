"""The tables of a text beside a session, and the refusal of a file that has others."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from allmem_runtime.errors import PassagesError
from allmem_runtime.files.links import followed
from allmem_runtime.files.regular import open_regular

SUFFIX = ".passages"
APPLICATION_ID = 0x416C4D50  # "AlMP"
VERSION = 4
"""Texts of version 1 have no vectors, none before 3 has pages and chapters, and none before 4 the
words within names (``maxRetries``) in its index; they are read and added to as they are."""
BUSY_SECONDS = 2.0

FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises: the latter where its message quotes a damaged file, in the midst of words."""

_TABLES = (
    "CREATE TABLE store (id TEXT NOT NULL)",
    "CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
    # Where an encoded segment ends; a session can stand at each of them.
    "CREATE TABLE mark (id INTEGER PRIMARY KEY, source INTEGER NOT NULL, bytes INTEGER NOT NULL, "
    "start INTEGER NOT NULL, characters INTEGER NOT NULL, first INTEGER NOT NULL, "
    "tokens INTEGER NOT NULL, digest TEXT NOT NULL UNIQUE)",
    "CREATE TABLE passage (id INTEGER PRIMARY KEY, source INTEGER NOT NULL, "
    "start INTEGER NOT NULL, line INTEGER NOT NULL, token INTEGER NOT NULL, text TEXT NOT NULL)",
    # No second copy of the text: the index has words and no content.
    "CREATE VIRTUAL TABLE words USING fts5(text, grams, content='', "
    "tokenize='porter unicode61 remove_diacritics 2')",
)
_VECTORS = (
    # What the parts of a passage mean: bytes of as many vectors, by a table of that name.
    "CREATE TABLE vectors (passage INTEGER PRIMARY KEY, made_by TEXT NOT NULL, parts BLOB NOT NULL)"
)
_REGIONS = (
    # Where a page or a chapter of a document begins, or goes on in a segment.
    "CREATE TABLE region (source INTEGER NOT NULL, start INTEGER NOT NULL, page INTEGER NOT NULL, "
    "chapter TEXT NOT NULL, PRIMARY KEY (source, start))"
)
_ALL = (*_TABLES, _VECTORS, _REGIONS)
_TABLES_OF = {1: _TABLES, 2: (*_TABLES, _VECTORS), 3: _ALL, VERSION: _ALL}
_END_OF_A_NAME = bytes.fromhex("d9d505f920a163d7")
"""How a journal of SQLite ends behind the name of a file."""
_REMEDY = "Questions are answered from the state alone; read the document again to have its text."


def beside(session: Path) -> Path:
    """The file that holds the text of a session: its own name with ``.passages`` after it."""
    session = followed(session)
    return session.with_name(session.name + SUFFIX)


def create(path: Path | None, identity: str) -> sqlite3.Connection:
    """New, empty tables.

    Args:
        path: a file that is not there yet, only its owner may read it; None for a private
            temporary file, which the system deletes when it is closed.
        identity: tells this text from all others.

    Raises:
        OSError: the file cannot be made.
        sqlite3.Error: it cannot be written.
    """
    if path is not None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = _connect("" if path is None else str(path))
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("BEGIN IMMEDIATE")
        for table in _TABLES_OF[VERSION]:
            connection.execute(table)
        connection.execute("INSERT INTO store VALUES (?)", (identity,))
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        if path is not None:
            remove(path)
        raise
    return connection


def remove(path: Path) -> None:
    """Delete a text file and what an interrupted process left of its last writing."""
    for name in (path, journal(path)):
        name.unlink(missing_ok=True)


def journal(path: Path) -> Path:
    """Where SQLite keeps what it will need to take an unfinished writing back."""
    return path.with_name(path.name + "-journal")


def open_file(path: Path) -> sqlite3.Connection:
    """The tables of a file, after a look at what they are.

    Raises:
        PassagesError: missing, no such file, of another version, or with other tables.
        FAILURES: locked or damaged.
    """
    try:
        _check_kind(path)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise PassagesError(f"The text {path} cannot be read: {reason}.", _REMEDY) from None
    _check_journal(journal(path))
    # Not for reading alone: what a killed process left half written is rolled back first.
    connection = _connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
    try:
        _check(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_kind(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise PassagesError(f"The text {path} is a link or no file.", _REMEDY)


def _check_journal(path: Path) -> None:
    """Refuse a journal that is not ours: SQLite follows it before anybody can look at the tables.

    One that ends with a name belongs to a writing of several files, and SQLite deletes the file of
    that name, wherever it lies. Source: https://www.sqlite.org/tempfiles.html (super-journals).
    """
    try:
        _check_kind(path)
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(_END_OF_A_NAME)))
            names_a_file = file.read() == _END_OF_A_NAME
    except FileNotFoundError:  # as a rule; or its writer has just finished
        return
    except OSError as error:
        raise PassagesError(f"{path} cannot be read: {error.strerror}.", _REMEDY) from None
    if names_a_file:
        raise PassagesError(f"{path} names another file, which SQLite would delete.", _REMEDY)


def is_ours(path: Path) -> bool:
    """Whether a file may be replaced by a new text: it was written as one, or is empty."""
    try:
        with open_regular(path) as file:
            head = file.read(72)
    except OSError:
        return False
    return not head or (head[68:72] == APPLICATION_ID.to_bytes(4, "big"))


def _connect(name: str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name, BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )
    # A file cannot make SQLite call functions by its views, triggers or defaults.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def has_inner_words(connection: sqlite3.Connection) -> bool:
    """Whether the index has the words within names too."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version >= 4


def _check(path: Path, connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise PassagesError(f"{path} is no text of a session.", _REMEDY)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in _TABLES_OF:
        raise PassagesError(
            f"The text {path} has the version {version}; this runtime reads 1 to {VERSION}.",
            _REMEDY,
        )
    if _described(connection) != _ours(version):
        raise PassagesError(f"The text {path} has other tables than ours.", _REMEDY)


def _described(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    """All that SQLite keeps in a file, with the statements: a trigger would run as its own."""
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master")
    return sorted(tuple(map(str, row)) for row in rows)


@lru_cache
def _ours(version: int) -> list[tuple[str, ...]]:
    """The same of tables as we make them, with those that SQLite makes for its index of words."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for table in _TABLES_OF[version]:
            connection.execute(table)
        return _described(connection)
