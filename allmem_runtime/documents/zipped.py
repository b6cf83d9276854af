"""What comes as a zip file: a book, an office document, or an archive of files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.anything import inner
from allmem_runtime.documents.members import is_hidden, reason_against, unpacked
from allmem_runtime.documents.parts import Budget, Note, Part, Refused

_BOOK = b"application/epub+zip"
_OPEN = b"application/vnd.oasis.opendocument.text"
_LINK = 0xA
"""The kind of a file, as Unix has it, in the first four bits of what a zip file keeps of it."""


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The book, the document or the files; see ``Extract``."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise Refused("is damaged, or no whole archive") from None
    with archive:
        names = frozenset(archive.namelist())
        kind = unpacked(archive, "mimetype", budget).strip() if "mimetype" in names else b""
        if kind == _BOOK or (not kind and "META-INF/container.xml" in names):
            from allmem_runtime.documents import epub

            yield from epub.extract(archive, budget)
        elif kind.startswith(_OPEN):
            from allmem_runtime.documents import odt

            yield from odt.extract(archive, budget)
        elif "word/document.xml" in names:
            from allmem_runtime.documents import docx

            for info in archive.infolist():  # the library reads them without asking how large
                budget.take(info.file_size)
            yield from docx.extract(file)
        elif kind or "[Content_Types].xml" in names:
            raise Refused("is an office document of a kind that is not read", "Save it as PDF.")
        else:
            yield from _files(archive, budget, depth)


def _files(archive: zipfile.ZipFile, budget: Budget, depth: int) -> Iterator[Part]:
    """Files in the order of their names; nothing is written, so no name leads anywhere."""
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if info.is_dir() or is_hidden(info.filename):
            continue
        link = info.external_attr >> 28 == _LINK
        if why := reason_against(info.filename, info.file_size, link):
            yield Note(f"{info.filename} {why}; left out")
            continue
        try:
            data = unpacked(archive, info, budget)  # two files may have one name
        except Refused as error:
            if error.ends_all:
                raise
            yield Note(f"{info.filename} {error.why}; left out")
            continue
        yield from inner(data, info.filename, budget, depth + 1)
