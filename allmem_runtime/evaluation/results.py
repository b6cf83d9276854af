"""A file of results, one JSON object a line, written as they are made and found again later.

A result is found by what it measured (row, model, prompt), never by its place in the file, so the
same command goes on where it stopped, and a changed one reuses exactly what still applies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.json_lines import append_line, take_lines

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
            take_lines(path, json.dumps(_BEGIN).encode(), self._take, self._foreign)
            if not path.exists() or not path.stat().st_size:
                self._append(_BEGIN)
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
        if self._path is not None:
            append_line(self._path, values)

    def _take(self, number: int, line: bytes) -> None:
        try:
            values = json.loads(line)
            if number == 1 and values["format"] != _FORMAT:
                raise ValueError
            if values["kind"] == "result":
                del values["kind"]
                self._records[key_of(values)] = values
        except (ValueError, KeyError, TypeError):
            raise self._foreign(number) from None

    def _foreign(self, number: int) -> UsageError:
        return UsageError(
            f"{self._path}: line {number} is no result of `allmem eval`.",
            "Name another file for --json; this one is left as it is.",
        )
