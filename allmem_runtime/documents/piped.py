"""A document that comes through a pipe: it is kept until its end, and then read as any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from allmem_runtime.documents.extraction import DocumentText, extract_open
from allmem_runtime.documents.kinds import kind_of
from allmem_runtime.documents.notes import tell_notes
from allmem_runtime.documents.spool import storing, temporary_file
from allmem_runtime.errors import SourceError
from allmem_runtime.text.places import Landmark

MOST = 1 << 30
"""Bytes that are kept of a stream."""


class Piped:
    """Makes text of a stream that begins as a document; see ``PipedText``.

    Args:
        name: of the stream.
        tell: told what was left out.
        live: it may never end, so what can be read as the text it is, is read so.
    """

    def __init__(self, name: str, tell: Callable[[str], None], *, live: bool) -> None:
        self._name, self._tell, self._live = name, tell, live
        self._text: DocumentText | None = None

    def within(self, first: int, end: int) -> list[Landmark]:
        """Pages and chapters of what turned out to be a document; see ``Landmarks``."""
        return [] if self._text is None else self._text.within(first, end)

    def taken(self, first: bytes, rest: Iterator[bytes]) -> Iterator[bytes] | None:
        """The text of a document; see ``PipedText``.

        Raises:
            SourceError: it cannot be read; see ``extract_open``.
            StorageError: there is no room for it.
        """
        kind = kind_of(first, self._name)
        if kind is None or (self._live and kind.is_text):
            return None
        with temporary_file() as file:
            size = 0
            for piece in chain([first], rest):
                size += len(piece)
                if size > MOST:
                    raise SourceError(
                        f"{self._name} is {kind.name} of more than {MOST >> 20:,} MiB.",
                        "Write it to a file, and name that.",
                    )
                with storing():
                    file.write(piece)
            with storing():
                file.seek(0)  # which writes what is left
            self._text = extract_open(file, kind, self._name)
        tell_notes(self._text, self._name, self._tell)
        return self._text.pieces()
