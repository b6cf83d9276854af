"""Reads what lies within another document: any kind, plain text included."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.kinds import HEAD_BYTES, kind_of
from allmem_runtime.documents.parts import (
    Budget,
    Chapter,
    Note,
    Page,
    Part,
    Refused,
    Text,
    lacking,
    reader,
)
from allmem_runtime.errors import SourceError
from allmem_runtime.text.encodings import UTF_8, Survey, transcoded
from allmem_runtime.text.kinds import check_controls, check_kind

MOST_DEPTH = 3
"""Documents within documents within documents."""
BLOCK = 1 << 16


def inner(data: bytes, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The parts of a document that lies in another one, under its name as a chapter.

    Args:
        data: the document.
        name: what it is called there.
        budget: of all.
        depth: documents it lies in.

    Raises:
        Refused: there is more than the document may unpack to; of all else it tells in a note.
    """
    begun = False
    try:
        for part in parts_of(io.BytesIO(data), name, budget, depth):
            if isinstance(part, Note):
                yield Note(f"{name} {part.what}", part.lacks)
                continue
            if isinstance(part, Chapter):
                yield Chapter(f"{name}, {part.title}" if part.title else name)
                begun = True
                continue
            if not begun:
                yield Chapter(name)
                begun = True
            yield part
    except ModuleNotFoundError as error:
        yield lacking(name, error)
    except Refused as error:
        if error.ends_all:
            raise
        yield Note(f"{name} {error.why}; left out")
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # a library may raise anything about a document that is not sound
        yield Note(f"{name} is damaged ({error}); left out")
    if begun:
        yield Text("\n\n")
        yield Page(0)


def parts_of(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The parts of a document of any kind.

    Raises:
        Refused: it cannot be read, or is nested too deep.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    kind = kind_of(head, name)
    if kind is None:
        yield from _plain(file, name)
        return
    if depth >= MOST_DEPTH:
        raise Refused(f"is {kind.name}, more than {MOST_DEPTH} deep")
    yield from reader(kind.module)(file, name, budget, depth)


def _plain(file: BinaryIO, name: str) -> Iterator[Part]:
    encoding = encoding_of(file, name)
    file.seek(0)
    pieces = iter(lambda: file.read(BLOCK), b"")
    for piece in transcoded(pieces, encoding):
        yield Text(piece.decode())


def encoding_of(file: BinaryIO, name: str) -> str:
    """The encoding of a plain text.

    Raises:
        Refused: it is no text.
    """
    survey, first = Survey(), True
    for piece in iter(lambda: file.read(BLOCK), b""):
        survey.push(piece)
        if first:
            wide = survey.wide()
            head = b"".join(transcoded([piece], wide)) if wide else piece
            try:
                check_kind(head, name)
                check_controls(head, name)
            except SourceError as error:
                raise Refused(error.message.removeprefix(f"{name} ").rstrip("."), "") from None
            if wide:
                return wide
        first = False
    return survey.encoding() or UTF_8
