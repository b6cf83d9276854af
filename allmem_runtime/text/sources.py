"""Where text comes from: a file, or standard input, as pieces of bytes.

It refuses what is not text with a remedy, and knows nothing of characters or tokens.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.errors import SourceError
from allmem_runtime.source_mark import RunningDigest
from allmem_runtime.text.blocks import read_blocks

STREAM_BYTES = 1 << 14
"""Most that is pulled from a stream at once; what is pulled when the reading ends is kept."""
STANDARD_INPUT = "standard input"
HEAD_BYTES = 1 << 16
MAX_INVALID_SHARE = 0.1
"""A first block with a larger share of invalid bytes is not UTF-8 text.

A European text in Latin-1 stays below it and is read with replacements; one in a Cyrillic or
Asian encoding is far above.
"""

# (first bytes, what it is)
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "an archive, an EPUB book or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"{\\rtf", "an RTF document"),
)
_EXTENSIONS = {
    ".pdf": "a PDF document",
    ".epub": "an EPUB book",
    ".mobi": "an e-book",
    ".azw3": "an e-book",
    ".htm": "an HTML page",
    ".html": "an HTML page",
    ".xhtml": "an HTML page",
    ".doc": "an office document",
    ".docx": "an office document",
    ".odt": "an office document",
    ".rtf": "an RTF document",
    ".gz": "a gzip archive",
    ".zip": "an archive",
}
_CONVERT = {
    "a PDF document": "Convert it to text first, for example with `pdftotext FILE -`.",
    "a gzip archive": "Unpack it and pipe it in, for example `zcat FILE | allmem-run MODEL -`.",
    "an xz archive": "Unpack it and pipe it in, for example `xzcat FILE | allmem-run MODEL -`.",
    "a bzip2 archive": "Unpack it and pipe it in, for example `bzcat FILE | allmem-run MODEL -`.",
    "an archive": "Unpack it and give the text files in it.",
}
_CONVERT_OTHER = "Convert it to text first, for example with `pandoc -t plain FILE`."
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_RECODE = "Convert it to UTF-8 first, for example with `iconv -f {} -t UTF-8 FILE`."


class EmptySourceError(SourceError):
    """A source that ended before it began."""


class MissingSourceError(SourceError):
    """A file that is not there."""


@dataclass(frozen=True, slots=True)
class Source:
    """Text to read.

    Attributes:
        name: what to call it, without its folder.
        size: bytes in all, or None where the end is not known.
        path: the file, or None for a stream that can be read once.
        stream: the stream, or None for a file.
        location: what names the path of a file; see ``location``.
        missing: there is no such file any more.
    """

    name: str
    size: int | None
    path: Path | None = None
    stream: BinaryIO | None = None
    location: str = ""
    missing: bool = False

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, in pieces; a stream is read up to there and dropped.

        Raises:
            SourceError: the file cannot be read, or is shorter than ``start``.
        """
        if self.stream is not None:
            return _skip(
                checked(read_blocks(self.stream, self.name, STREAM_BYTES), self.name),
                start,
                self.name,
            )
        assert self.path is not None
        return self._file_pieces(self.path, start)

    def _file_pieces(self, path: Path, start: int) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < start:
                    raise _shorter(self.name, start)
                file.seek(start)
                read = start
                for piece in read_blocks(file, self.name):
                    read += len(piece)
                    yield piece
        except OSError as error:
            raise SourceError(*_unreadable(self.name, error)) from None
        if read < size:
            raise SourceError(
                f"{self.name} lost its end while it was read: it had {size:,} bytes, and now there "
                f"is nothing after {read:,}.",
                "Give it once it is whole; a session has kept what was read.",
            )

    def digest(self, length: int) -> RunningDigest:
        """SHA-256 of the first ``length`` bytes of a file, which can go on with those after.

        Raises:
            SourceError: the file cannot be read, or is shorter.
        """
        hasher = hashlib.sha256()
        left = length
        for piece in self.pieces():
            hasher.update(piece[:left])
            left -= len(piece[:left])
            if not left:
                return hasher
        if left:
            raise _shorter(self.name, length)
        return hasher


def location(path: Path) -> str:
    """Sixteen digits that name a path without telling it."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]


def open_source(name: str, stdin: BinaryIO) -> Source:
    """A file by its path, or standard input for ``-``.

    Raises:
        SourceError: missing, a directory, unreadable, empty, or not text; the hint says what to
            do about it.
    """
    if name == "-":
        return Source(STANDARD_INPUT, None, stream=stdin)
    path = Path(name)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise SourceError(
                f"{name} is a directory.", "Name the files in it, in the order of reading."
            )
        if not stat.S_ISREG(status.st_mode):
            # A named pipe or terminal: it can be read once and has no size.
            return Source(path.name, None, stream=path.open("rb", buffering=0))
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise MissingSourceError(*_unreadable(name, error)) from None
    except (OSError, ValueError) as error:
        raise SourceError(*_unreadable(name, error)) from None
    if not head:
        raise EmptySourceError(f"{name} is empty.", "Give a file with text in it.")
    check_text(head, path.name)
    return Source(path.name, status.st_size, path=path, location=location(path))


def check_text(head: bytes, name: str) -> None:
    """Refuse what is not UTF-8 text.

    Args:
        head: the first bytes, up to ``HEAD_BYTES``.
        name: file name; its extension counts too.

    Raises:
        SourceError: says what it seems to be and how to make text of it.
    """
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    start = head[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        kind = "an HTML page"
    kind = kind or _EXTENSIONS.get(Path(name).suffix.lower())
    if kind:
        raise SourceError(f"{name} is {kind}, not text.", _CONVERT.get(kind, _CONVERT_OTHER))
    if head.startswith(_UTF16):
        raise SourceError(f"{name} is text in UTF-16.", _RECODE.format("UTF-16"))
    if b"\0" in head:
        raise SourceError(
            f"{name} holds zero bytes; it is no text.", "Give a text or Markdown file in UTF-8."
        )
    if invalid_share(head) > MAX_INVALID_SHARE:
        raise SourceError(
            f"{name} is not UTF-8: {invalid_share(head):.0%} of its beginning is invalid.",
            _RECODE.format("ENCODING"),
        )


def invalid_share(data: bytes) -> float:
    """The share of bytes that belong to no character."""
    valid = len(data.decode("utf-8", "ignore").encode("utf-8"))
    return (len(data) - valid) / len(data) if data else 0.0


def checked(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The same pieces, once the first was seen to be text.

    Raises:
        SourceError: the first piece is not text, or there is none.
    """
    first = next(pieces, b"")
    if not first:
        raise EmptySourceError(f"{name} is empty.", "Pipe text in, or name a file.")
    check_text(first, name)
    yield first
    yield from pieces


def _skip(pieces: Iterator[bytes], count: int, name: str) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) > count:
            yield piece[count:]
            count = 0
        else:
            count -= len(piece)
    if count:
        raise _shorter(name, count)


def _shorter(name: str, start: int) -> SourceError:
    return SourceError(
        f"{name} ends before byte {start}, up to which it was read before.",
        "Give the source as it was, or start over with another session file.",
    )


def _unreadable(name: str, error: OSError | ValueError) -> tuple[str, str]:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"Cannot read {name}: {reason}.", "Check the path and its permissions."
