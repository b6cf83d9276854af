"""Where text comes from: a file, or standard input, as pieces of bytes in UTF-8.

It refuses what is not text with a remedy, and knows nothing of tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Protocol

from allmem_runtime.errors import SourceError
from allmem_runtime.quantities import counted
from allmem_runtime.source_mark import RunningDigest
from allmem_runtime.text.blocks import read_blocks
from allmem_runtime.text.encodings import UTF_8, Survey, transcoded
from allmem_runtime.text.kinds import check_controls, check_kind
from allmem_runtime.text.places import Landmarks

STREAM_BYTES = 1 << 14
"""Most that is pulled from a stream at once; what is pulled when the reading ends is kept."""
STREAM_INVALID = 16
"""Of a stream the beginning alone is known: a few damaged bytes in it decide nothing."""
STANDARD_INPUT = "standard input"


def _nobody(text: str) -> None:
    """Told what nobody wants to know."""


class EmptySourceError(SourceError):
    """A source that ended before it began."""


class MissingSourceError(SourceError):
    """A file that is not there."""


class DocumentText(Landmarks, Protocol):
    """The text of a document that is no text file, with its pages and chapters."""

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, in UTF-8."""


class ComingSource(Protocol):
    """A source that somebody else opens meanwhile."""

    def wait(self, tell: Callable[[str], None], stop: Callable[[], bool]) -> Source | None:
        """The source once it is there; None where it is to stop.

        Args:
            tell: told what was left out of it.
            stop: whether to stop waiting; asked often.

        Raises:
            SourceError: it cannot be read.
        """


class PipedText(Landmarks, Protocol):
    """What a stream is read with that may turn out to be a document."""

    def taken(self, first: bytes, rest: Iterator[bytes]) -> Iterator[bytes] | None:
        """The text of a document, all of it from its first byte on; None of what is none.

        Args:
            first: bytes of the stream.
            rest: what follows; nothing is taken from it of a stream that is no document.
        """


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
        encoding: of its bytes. All else counts the bytes it has in UTF-8.
        tell: told in which encoding a stream is taken, if it is not UTF-8.
        document: the text of the file, where that is no text file; its bytes are counted.
        in_folder: it was found in a folder that was named, or by a pattern.
        piped: of a stream, what makes text of it where it is a document.
        coming: the document is still being opened; nothing else but its name is known then.
    """

    name: str
    size: int | None
    path: Path | None = None
    stream: BinaryIO | None = None
    location: str = ""
    missing: bool = False
    encoding: str = ""
    tell: Callable[[str], None] = _nobody
    document: DocumentText | None = None
    in_folder: bool = False
    piped: PipedText | None = None
    coming: ComingSource | None = None

    @property
    def landmarks(self) -> Landmarks | None:
        """Pages and chapters of a document; those of a stream as far as it was read."""
        return self.document or self.piped

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, in pieces; a stream is read up to there and dropped.

        Raises:
            SourceError: the file cannot be read, or is shorter than ``start``.
        """
        if self.stream is not None:
            return _skip(self._stream_pieces(self.stream), start, self.name)
        assert self.path is not None
        if self.document is not None:
            if start > (self.size or 0):
                raise _shorter(self.name, start)
            return self.document.pieces(start)
        if self.encoding in ("", UTF_8):
            return self._file_pieces(self.path, start)
        return _skip(transcoded(self._file_pieces(self.path, 0), self.encoding), start, self.name)

    def _stream_pieces(self, stream: BinaryIO) -> Iterator[bytes]:
        """The bytes in UTF-8, once the first were seen to be text."""
        pieces = read_blocks(stream, self.name, STREAM_BYTES)
        first = list(islice(pieces, 1))
        if first and self.piped is not None:
            text = self.piped.taken(first[0], pieces)
            if text is not None:
                yield from text
                return
        encoding = _encoding_of(first, self.name, self.encoding, least=STREAM_INVALID)
        if encoding != UTF_8 and not self.encoding:
            self.tell(chosen(self.name, encoding))
        pieces = chain(first, pieces)
        yield from pieces if encoding == UTF_8 else transcoded(pieces, encoding)

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
                f"{self.name} lost its end while it was read: it had {counted(size, 'byte')}, and "
                f"now there is nothing after {read:,}.",
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


def open_source(
    name: str,
    stdin: BinaryIO,
    encoding: str = "",
    tell: Callable[[str], None] = _nobody,
    called: str = "",
) -> Source:
    """A file by its path, or standard input for ``-``.

    Args:
        name: the path.
        stdin: standard input.
        encoding: of its bytes; by default what they seem to be in.
        tell: told which encoding that is, if it is not UTF-8.
        called: what to call a file; by default its name without its folder.

    Raises:
        SourceError: missing, a directory, unreadable, empty, or not text; the hint says what to
            do about it.
    """
    if name == "-":
        return Source(STANDARD_INPUT, None, stream=stdin, encoding=encoding, tell=tell)
    path = Path(name)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise SourceError(
                f"{name} is a directory.", "Name the files in it, in the order of reading."
            )
        if not stat.S_ISREG(status.st_mode):
            # A named pipe or terminal: it can be read once and has no size.
            stream = path.open("rb", buffering=0)
            return Source(path.name, None, stream=stream, encoding=encoding, tell=tell)
        with path.open("rb") as file:
            called = called or path.name
            found = _encoding_of(read_blocks(file, called), called, encoding)
    except FileNotFoundError as error:
        raise MissingSourceError(*_unreadable(name, error)) from None
    except (OSError, ValueError) as error:
        raise SourceError(*_unreadable(name, error)) from None
    where = location(path)
    if found == UTF_8:
        return Source(called, status.st_size, path=path, location=where)
    source = Source(called, None, path=path, location=where, encoding=found)
    if not encoding:
        tell(chosen(called, found))
    return dataclasses.replace(source, size=sum(len(piece) for piece in source.pieces()))


def chosen(name: str, encoding: str) -> str:
    """What to tell of a source that is not in UTF-8."""
    return f"{name} is not in UTF-8; it is read as {encoding}. --encoding NAME overrules that."


def _encoding_of(pieces: Iterable[bytes], name: str, wanted: str, least: int = 1) -> str:
    """The encoding of a text.

    Args:
        pieces: its bytes; all of them are looked at.
        name: file name; its extension counts too.
        wanted: what it is read as in any case; empty to find out.
        least: bytes that are not UTF-8 which it takes to look for another encoding.

    Raises:
        SourceError: it is not text, or in no encoding that is known.
    """
    survey, first = Survey(), True
    for piece in pieces:
        if first:
            check_kind(piece, name)
        survey.push(piece)
        if first:
            wide = survey.wide()
            head = b"".join(transcoded([piece], wanted or wide)) if wanted or wide else piece
            check_kind(head, name)
            check_controls(head, name)
        if wanted or (first and wide):
            return wanted or wide
        first = False
    if first:
        raise EmptySourceError(f"{name} is empty.", "Give a source with text in it.")
    encoding = survey.encoding() if survey.invalid >= least else UTF_8
    if not encoding:
        raise SourceError(
            f"{name} is not UTF-8, and its encoding is not known.",
            "Name it with --encoding, such as `--encoding gb18030`.",
        )
    return encoding


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
    if isinstance(error, UnicodeError):
        return f"Cannot read {name}: {error}.", "Name another --encoding."
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"Cannot read {name}: {reason}.", "Check the path and its permissions."
