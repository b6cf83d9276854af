"""Results by question, kept as they come: what a file has is not asked again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from allmem_runtime.errors import StorageError, UsageError
from allmem_runtime.evaluation.json_lines import append_line, take_lines

Record = dict[str, Any]

_BEGIN = b'{"setup": '


class KeptAnswers:
    """A file of JSON lines: first what was asked of whom, then a line for each question.

    Args:
        path: the file; it is made if it is missing.
        setup: what the answers depend on; a file of another setup is left alone.

    Attributes:
        setup: as given, as JSON knows it.
        began: whether the file is a new one.

    Raises:
        UsageError: the file holds something else, or answers of another setup.
        StorageError: it cannot be used.
    """

    def __init__(self, path: Path, setup: Record) -> None:
        self._path = path
        self.setup = json.loads(json.dumps(setup))
        self._records: dict[str, Record] = {}
        take_lines(path, _BEGIN, self._take, self._foreign)
        self.began = not path.exists() or not path.stat().st_size
        if self.began:
            append_line(path, {"setup": self.setup})

    def __getitem__(self, key: str) -> Record:
        return self._records[key]

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def add(self, key: str, record: Record) -> None:
        """Keep a result; it is on the disk when this returns."""
        self._records[key] = {"key": key, **record}
        append_line(self._path, self._records[key])

    def _take(self, number: int, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            raise self._foreign(number) from None
        if number == 1:
            if not isinstance(record, dict) or "setup" not in record:
                raise self._foreign(number)
            self._check(record["setup"])
        elif not isinstance(record, dict) or "key" not in record:
            raise self._foreign(number)
        else:
            self._records[record["key"]] = record

    def _check(self, other: Record) -> None:
        if other != self.setup:
            names = [n for n in self.setup | other if self.setup.get(n) != other.get(n)]
            raise UsageError(
                f"{self._path} holds answers of another setup ({', '.join(names)}).",
                "Name another folder; this one is left as it is.",
            )

    def _foreign(self, number: int) -> UsageError:
        return UsageError(
            f"{self._path}: line {number} is not a kept answer.", "Name another folder."
        )


def digest(*texts: str) -> str:
    """SHA-256 of texts, each with its length before it."""
    whole = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()


def write_json(path: Path, values: Record) -> None:
    """Write the results of a measurement.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} could not be written ({error.strerror}).") from None
