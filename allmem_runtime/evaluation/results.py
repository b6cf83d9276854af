"""A file of results, one JSON object a line, written as they are made and found again later.

A result is found by what it measured (row, model, prompt), never by its place in the file, so the
same command goes on where it stopped, and a changed one reuses exactly what still applies.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from allmem_runtime.errors import StorageError, UsageError

Record = dict[str, Any]
Key = tuple[str, str, bool, str, str, int, int, str]
"""Row name, digest of the model, reset or not, task, column, sample, question, digest of the
prompt."""

_FORMAT = "allmem-eval-1"
_BEGIN = {"kind": "begin", "format": _FORMAT}


def key_of(record: Record) -> Key:
    """What a result measured."""
    return (
        record["row"], record["model"], record["reset"], record["task"], record["column"],
        record["sample"], record["question"], record["prompt"],
    )  # fmt: skip


class Results:
    """Results by what they measured, kept in a file if there is one.

    Args:
        path: the file; made if it is missing. None keeps nothing.

    Attributes:
        found: how many results the file held already.

    Raises:
        UsageError: the file is no file of results.
        StorageError: it cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._records: dict[Key, Record] = {}
        if path is not None:
            self._open(path)
        self.found = len(self._records)

    def get(self, key: Key) -> Record | None:
        """The result of this, if it was made before."""
        return self._records.get(key)

    def add(self, record: Record) -> None:
        """Keep a result; it is on disk when this returns.

        Raises:
            StorageError: writing failed; what was there before is intact.
        """
        self._records[key_of(record)] = record
        self._append({"kind": "result", **record})

    def summary(self, values: Record) -> None:
        """Keep the table as well; of several the last one counts."""
        self._append({"kind": "table", **values})

    def _append(self, values: Record) -> None:
        if self._path is None:
            return
        line = json.dumps(values) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"{self._path}: the result could not be written ({error.strerror}).",
                "Make room, and run the same command again: it goes on from here.",
            ) from None

    def _open(self, path: Path) -> None:
        try:
            data = path.read_bytes() if path.exists() else b""
            # A kill can leave half a line, and only the last one.
            whole = data[: data.rfind(b"\n") + 1]
            if not whole and not json.dumps(_BEGIN).encode().startswith(data):
                whole = data  # nobody's half line of ours; it will be refused
            for number, line in enumerate(whole.splitlines(), 1):
                self._take(path, number, line)
            if whole != data:
                with path.open("r+b") as file:
                    file.truncate(len(whole))
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be read ({error.strerror}).", "Name another file for --json."
            ) from None
        if not whole:
            self._append(_BEGIN)

    def _take(self, path: Path, number: int, line: bytes) -> None:
        hint = "Name another file for --json; this one is left as it is."
        try:
            values = json.loads(line)
            if number == 1 and values["format"] != _FORMAT:
                raise ValueError
            if values["kind"] == "result":
                del values["kind"]
                self._records[key_of(values)] = values
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{path}: line {number} is no result of `allmem eval`.", hint
            ) from None
