"""Tables in text files (CSV, TSV): each row with the names of its columns."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.anything import BLOCK, encoding_of
from allmem_runtime.documents.columns import columns_in
from allmem_runtime.documents.parts import Budget, Part, Refused, Text
from allmem_runtime.text.encodings import transcoded

_HEAD = 1 << 16
_ROWS = 500
"""Rows that are told together."""
_LONGEST_FIELD = 1 << 20
_LONGEST_LINE = 1 << 22


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The header, and the rows each in a line; see ``Extract``."""
    encoding = encoding_of(file, name)
    file.seek(0)
    columns = columns_in(b"".join(transcoded([file.read(_HEAD)], encoding)).decode("utf-8-sig"))
    if columns is None:
        raise Refused("is no table whose columns have names")
    file.seek(0)
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader(_lines(file, encoding), delimiter=columns.part)
    header = next(rows)
    held = [columns.part.join(header) + "\n"]
    for fields in rows:
        if row := columns.row(fields):
            held.append(row + "\n")
        if len(held) >= _ROWS:
            yield Text("".join(held))
            held.clear()
    yield Text("".join(held))


def _lines(file: BinaryIO, encoding: str) -> Iterator[str]:
    """The lines of the text, which may be broken within a field."""
    pieces = transcoded(iter(lambda: file.read(BLOCK), b""), encoding)
    reader = codecs.getincrementaldecoder("utf-8-sig")("replace")
    rest = ""
    for piece in pieces:
        lines = (rest + reader.decode(piece)).split("\n")
        rest = lines.pop()
        if len(rest) > _LONGEST_LINE:
            raise Refused(f"has a row of more than {_LONGEST_LINE >> 20} MiB")
        yield from (f"{line}\n" for line in lines)
    if rest := rest + reader.decode(b"", True):
        yield rest
