"""Tables in text files (CSV, TSV): each row with the names of its columns."""

from __future__ import annotations

import codecs
import csv
import io
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
    rows = _rows(file, encoding, columns.part)
    held = [columns.part.join(next(rows)) + "\n"]
    for fields in rows:
        if row := columns.row(fields):
            held.append(row + "\n")
        if len(held) >= _ROWS:
            yield Text("".join(held))
            held.clear()
    yield Text("".join(held))


def _rows(file: BinaryIO, encoding: str, part: str) -> Iterator[list[str]]:
    """The fields of each row that has any."""
    try:
        yield from filter(None, csv.reader(_lines(file, encoding), delimiter=part))
    except csv.Error:  # it refuses nothing else where quotes and ends of lines may be as they like
        raise Refused(f"has a field of more than {_LONGEST_FIELD >> 20} MiB") from None


def _lines(file: BinaryIO, encoding: str) -> Iterator[str]:
    """The lines of the text, whatever ends them; a field may be broken into several."""
    pieces = transcoded(iter(lambda: file.read(BLOCK), b""), encoding)
    reader = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8-sig")("replace"), translate=True
    )
    rest = ""
    for piece in pieces:
        lines = (rest + reader.decode(piece)).split("\n")
        rest = lines.pop()
        if len(rest) > _LONGEST_LINE:
            raise Refused(f"has a row of more than {_LONGEST_LINE >> 20} MiB")
        yield from (f"{line}\n" for line in lines)
    if rest := rest + reader.decode(b"", True):
        yield rest
