"""How a table in a text file is written: what parts its columns, and what they are called."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

_PARTS = (",", ";", "\t", "|")
_SUFFIXES = (".csv", ".tsv", ".tab")
_LOOKED_AT = 50
"""Rows by which it is decided."""
_LONGEST_NAME = 100
_NUMBER = re.compile(r"[\d\s.,:/%$€+-]*")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table.

    Args:
        part: the character between two fields.
        names: one of each column.
    """

    part: str
    names: tuple[str, ...]

    def row(self, fields: Sequence[str]) -> str:
        """A row that says by itself what is what; empty of one without values."""
        said = []
        for index, field in enumerate(fields):
            if value := " ".join(field.split()):
                name = self.names[index] if index < len(self.names) else ""
                said.append(f"{name}: {value}" if name else value)
        return "; ".join(said)


def columns_of(head: bytes, name: str) -> Columns | None:
    """The columns of a file that is called a table and begins like one whose columns have names.

    Nothing else tells a table from a poem with a comma in each line, so its name decides with what
    it holds. Where the first row holds numbers, or what is in the column again, it is no header.

    Args:
        head: the first bytes.
        name: of the file.
    """
    if not name.lower().endswith(_SUFFIXES):
        return None
    text = _decoded(head)
    return None if "\0" in text else columns_in(text)


def columns_in(text: str) -> Columns | None:
    """The columns of the text that a table begins with."""
    lines = text.splitlines(keepends=True)
    if len(lines) > 1 and not lines[-1].endswith(("\n", "\r")):
        del lines[-1]  # it may go on where the head ends
    return next((found for part in _PARTS if (found := _parted(lines, part))), None)


def _decoded(head: bytes) -> str:
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if head.startswith(mark):
            return head.decode("utf-16", "replace")
    return head.decode("utf-8-sig", "replace")


def _parted(lines: list[str], part: str) -> Columns | None:
    """The columns, if all rows have as many fields as the first."""
    if not lines or part not in lines[0]:
        return None
    rows = []
    try:
        for row in csv.reader(lines, delimiter=part, strict=True):
            if row:
                rows.append([field.strip() for field in row])
            if len(rows) > _LOOKED_AT:
                break
    except csv.Error:  # quotes that no end was found for, as where the head ends
        pass
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows[1:]):
        return None
    names = rows[0]
    odd = any(len(name) > _LONGEST_NAME or _NUMBER.fullmatch(name) for name in names if name)
    empty = sum(not name for name in names)
    again = any(row[at] == name for row in rows[1:] for at, name in enumerate(names) if name)
    if odd or again or empty > 1 or len(set(names)) < len(names):
        return None
    return Columns(part, tuple(" ".join(name.split()) for name in names))
