"""Passages in SQLite: one file beside a session, written all or nothing.

Every text and every number is a parameter of a statement; nothing that was read or asked becomes
SQL.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from allmem_runtime.passages import regions, schema, vectors
from allmem_runtime.passages.failures import check_may_replace, damaged, unreadable, unwritable
from allmem_runtime.passages.identifiers import inner_words
from allmem_runtime.passages.rows import Mark, Region, Row, cut_at
from allmem_runtime.passages.scripts import grams
from allmem_runtime.strict_json import is_whole

_MOST = 1 << 62


class Store:
    """The tables of one text; threads may share it.

    Args:
        connection: to its tables.
        path: its file; None for a private temporary one.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self._connection = connection
        self.path = path
        self._readers: weakref.WeakSet[object] = weakref.WeakSet()
        self._lock = threading.RLock()
        with self._reading():
            self.identity: str = self._one("SELECT id FROM store")[0]
            self._has_vectors = vectors.has(connection)
            self.has_regions = regions.has(connection)
            self._has_inner_words = schema.has_inner_words(connection)
            self._check([], self.identity)

    @classmethod
    def create(cls, path: Path | None, identity: str = "") -> Store:
        """An empty store; an old one at ``path`` is replaced.

        Args:
            path: its file; None for a private temporary one.
            identity: of the store it goes on from; a new one by default.

        Raises:
            StorageError: it cannot be written, or the file there is none of ours.
        """
        try:
            if path is not None:
                check_may_replace(path)
                schema.remove(path)
            return cls(schema.create(path, identity or secrets.token_hex(16)), path)
        except (OSError, ValueError, sqlite3.Error) as error:
            raise unwritable(path, error) from None

    @classmethod
    def open(cls, path: Path) -> Store:
        """The store in a file.

        Raises:
            PassagesError: it cannot be used; the text says why.
        """
        try:
            return cls(schema.open_file(path), path)
        except schema.FAILURES as error:
            raise unreadable(path, error) from None

    def close(self) -> None:
        """Leave the file; what was written stays."""
        with self._lock:
            self._connection.close()

    # Sharing -----------------------------------------------------------------------------

    def share(self, reader: object) -> Store:
        """This store, which from now on loses nothing that the reader may still need."""
        with self._lock:
            self._readers.add(reader)
        return self

    def is_shared(self, reader: object) -> bool:
        """Whether anybody but this one reads it."""
        with self._lock:
            return any(other is not reader for other in self._readers)

    def own(self, reader: object) -> Store:
        """The same content, tables and file for one reader alone, who may then take from it.

        All others read a private copy from then on, which they find in this store.

        Raises:
            StorageError: the copy cannot be written; nothing was changed.
        """
        with self._lock:
            if not self.is_shared(reader):
                return self
            try:
                copy = schema.create(None, self.identity)
            except schema.FAILURES as error:
                raise unwritable(None, error) from None
            self._back_up(copy, None)
            own = Store(self._connection, self.path)
            self._connection, self.path = copy, None
        return own.share(reader)

    # Writing -----------------------------------------------------------------------------

    def write(
        self,
        sources: Sequence[tuple[int, str]],
        marks: Sequence[Mark],
        rows: Sequence[Row],
        drop: tuple[int, int],
        after: Mark,
        places: Sequence[Region] = (),
    ) -> None:
        """Drop and add rows, all or nothing.

        Args:
            sources: numbers and names.
            marks: in order.
            rows: passages in order.
            drop: first passages that are to go, from this source and character on.
            after: first marks, sources, pages and chapters that are to go, those behind this mark.
            places: pages and chapters in order; a store of an earlier version keeps none.

        Raises:
            StorageError: writing failed; nothing was changed.
        """
        with self._writing() as run:
            self._drop(drop)
            run("DELETE FROM mark WHERE id > ?", (self._number(after),))
            run("DELETE FROM source WHERE id > ?", (after.source,))
            if self.has_regions:
                regions.replace(self._connection, places, after)
            for source in sources:
                run("INSERT INTO source VALUES (?, ?)", source)
            for mark in marks:
                run(
                    "INSERT INTO mark (source, bytes, start, characters, first, tokens, digest) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    dataclasses.astuple(mark),
                )
            for row in rows:
                number = run(
                    "INSERT INTO passage (source, start, line, token, text) VALUES (?, ?, ?, ?, ?)",
                    (row.source, row.start, row.line, row.token, row.text),
                ).lastrowid
                run(
                    "INSERT INTO words (rowid, text, grams) VALUES (?, ?, ?)",
                    (number, *self._indexed(row.text)),
                )
                if number and self._has_vectors:
                    vectors.add(self._connection, number, row.text)

    def _drop(self, where: tuple[int, int]) -> None:
        gone = self._connection.execute(
            "SELECT id, text FROM passage WHERE (source, start) >= (?, ?)", where
        ).fetchall()
        for number, text in gone:
            # An index without content must be told what it forgets.
            self._connection.execute(
                "INSERT INTO words (words, rowid, text, grams) VALUES ('delete', ?, ?, ?)",
                (number, *self._indexed(text)),
            )
            self._connection.execute("DELETE FROM passage WHERE id = ?", (number,))
            if self._has_vectors:
                vectors.drop(self._connection, number)

    def _indexed(self, text: str) -> tuple[str, str]:
        """What the index has of a passage: its words, and the grams of scripts without spaces."""
        inner = inner_words(text) if self._has_inner_words else ""
        return f"{text}\n{inner}" if inner else text, " ".join(grams(text))

    def copy(self, path: Path) -> Store:
        """A store of the same content; a file at ``path`` is replaced by a whole one.

        Raises:
            StorageError: it cannot be written.
        """
        check_may_replace(path)
        temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.tmp")
        try:
            target = schema.create(temporary, self.identity)
            self._back_up(target, path)
            target.close()
            schema.journal(path).unlink(missing_ok=True)
            temporary.replace(path)
        except (OSError, ValueError, sqlite3.Error) as error:
            raise unwritable(path, error) from None
        finally:
            schema.remove(temporary)
        return Store.open(path)

    def _back_up(self, target: sqlite3.Connection, path: Path | None) -> None:
        try:
            with self._lock:
                self._connection.backup(target)
        except schema.FAILURES as error:
            raise unwritable(path, error) from None

    # Reading -----------------------------------------------------------------------------

    def mark(self, digest: str) -> Mark | None:
        """The mark of this digest; the beginning for an empty one, None if there is none."""
        if not digest:
            return Mark()
        with self._reading():
            row = self._connection.execute(
                "SELECT source, bytes, start, characters, first, tokens, digest FROM mark "
                "WHERE digest = ?",
                (digest,),
            ).fetchone()
        return None if row is None else self._mark(row)

    def end_of(self, name: str, end: int, until: Mark) -> Mark | None:
        """The mark at which the last reading of a source ended; None if there is none.

        Args:
            name: of the source.
            end: bytes of it that were read.
            until: the last mark that counts.
        """
        with self._reading():
            row = self._connection.execute(
                "SELECT m.source, m.bytes, m.start, m.characters, m.first, m.tokens, m.digest "
                "FROM mark AS m JOIN source AS s ON s.id = m.source "
                "WHERE s.name = ? AND m.bytes = ? AND m.id <= ? ORDER BY m.id DESC LIMIT 1",
                (name, end, self._number(until)),
            ).fetchone()
        return None if row is None else self._mark(row)

    def marks(self, until: Mark, source: int = 0, characters: int = -1) -> Iterator[Mark]:
        """Marks in order up to ``until``, it included.

        Args:
            until: the last.
            source: leave out those of earlier sources.
            characters: and those that end at or before this character of it.
        """
        with self._reading():
            rows = self._connection.execute(
                "SELECT source, bytes, start, characters, first, tokens, digest FROM mark "
                "WHERE id <= ? AND (source, characters) > (?, ?) ORDER BY id",
                (self._number(until), source, characters),
            )
            for row in rows:
                yield self._mark(row)

    def rows(self, until: Mark, source: int = 0, start: int = 0) -> Iterator[Row]:
        """Passages in order from a character of a source on, up to a mark and cut there."""
        with self._reading():
            found = self._connection.execute(
                "SELECT source, start, line, token, text FROM passage "
                "WHERE (source, start) >= (?, ?) AND (source, start) < (?, ?) ORDER BY id",
                (source, start, until.source, until.characters),
            )
            for row in found:
                yield cut_at(self._row(row), until)

    def row(self, number: int, until: Mark) -> Row | None:
        """One passage by its number, cut at a mark; None if there is none before it."""
        with self._reading():
            found = self._connection.execute(
                "SELECT source, start, line, token, text FROM passage "
                "WHERE id = ? AND (source, start) < (?, ?)",
                (number, until.source, until.characters),
            ).fetchone()
        return None if found is None else cut_at(self._row(found), until)

    def source(self, number: int) -> str:
        """Name of a source."""
        with self._reading():
            found = self._connection.execute(
                "SELECT name FROM source WHERE id = ?", (number,)
            ).fetchone()
        return str(found[0]) if found else ""

    def sources(self) -> list[tuple[int, str]]:
        """Numbers and names of all sources."""
        with self._reading():
            rows = self._connection.execute("SELECT id, name FROM source ORDER BY id")
            return [(number, str(name)) for number, name in rows]

    def regions(self, source: int, start: int, end: int) -> list[Region]:
        """Pages and chapters of a source that begin from one of its characters up to another."""
        with self._reading():
            rows = regions.between(self._connection, source, start, end) if self.has_regions else []
        return [self._region(row) for row in rows]

    def all_regions(self, first: tuple[int, int], until: Mark) -> list[Region]:
        """Pages and chapters from a source and character of it on, up to a mark."""
        with self._reading():
            rows = regions.following(self._connection, first, until) if self.has_regions else []
        return [self._region(row) for row in rows]

    def region(self, source: int, character: int) -> Region | None:
        """The page or chapter a character of a source stands on; None where none is known."""
        with self._reading():
            row = regions.at(self._connection, source, character) if self.has_regions else None
        return None if row is None else self._region(row)

    def last(self, until: Mark) -> int:
        """Number of the last passage that begins before a mark; 0 if there is none."""
        with self._reading():
            return int(
                self._one(
                    "SELECT coalesce(max(id), 0) FROM passage WHERE (source, start) < (?, ?)",
                    until.source,
                    until.characters,
                )[0]
            )

    def count(self, expression: str, last: int) -> int:
        """How many of the passages up to ``last`` match an expression of FTS5."""
        with self._reading():
            statement = "SELECT count(*) FROM words WHERE words MATCH ? AND rowid <= ?"
            return int(self._one(statement, expression, last)[0])

    def matches(self, expression: str, last: int) -> list[tuple[int, float]]:
        """Passages up to ``last`` that match an expression of FTS5, each with SQLite's BM25."""
        with self._reading():
            return self._connection.execute(
                "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? AND rowid <= ?",
                (expression, last),
            ).fetchall()

    def meanings(self, texts: Sequence[tuple[str, float]], last: int) -> dict[int, float]:
        """How near the passages up to ``last`` come to texts by what they mean.

        Args:
            texts: each with what it counts.
            last: number of the last passage.

        Returns:
            By the number of a passage the sum of cosines, of its nearest part each; without those
            that have no vectors, which is all of them in files of earlier versions.
        """
        with self._reading():
            return vectors.cosines(self._connection, texts, last) if self._has_vectors else {}

    @property
    def nbytes(self) -> int:
        """Size of the tables."""
        with self._reading():
            pages = self._one("PRAGMA page_count")[0]
            return int(pages * self._one("PRAGMA page_size")[0])

    def _mark(self, row: tuple[Any, ...]) -> Mark:
        *places, digest = row
        self._check(places, digest)
        return Mark(*row)

    def _row(self, row: tuple[Any, ...]) -> Row:
        *places, text = row
        self._check(places, text)
        return Row(*row)

    def _region(self, row: tuple[Any, ...]) -> Region:
        *places, chapter = row
        self._check(places, chapter)
        return Region(*row)

    def _check(self, places: list[Any], text: Any) -> None:
        """SQLite keeps values of any type in a column; ours are places and texts."""
        if not isinstance(text, str) or not all(is_whole(place, 0, _MOST) for place in places):
            raise damaged(self.path)

    def _one(self, statement: str, *values: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        if row is None:
            raise damaged(self.path)
        return row

    def _number(self, mark: Mark) -> int:
        found = self._connection.execute(
            "SELECT id FROM mark WHERE digest = ?", (mark.digest,)
        ).fetchone()
        return int(found[0]) if found else 0

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except schema.FAILURES as error:
                raise unreadable(self.path, error) from None

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(*schema.FAILURES):
                    self._connection.execute("ROLLBACK")
                if isinstance(error, schema.FAILURES):
                    raise unwritable(self.path, error) from None
                raise
