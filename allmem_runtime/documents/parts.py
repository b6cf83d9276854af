"""What a document is made of once it is read: text, places, and what was left out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast


@dataclass(frozen=True, slots=True)
class Text:
    r"""Some text, in the order of reading; line ends as ``\n``."""

    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page begins, counted from 1; 0 ends the pages."""

    number: int


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter begins, or a file of an archive; an empty title ends it."""

    title: str


@dataclass(frozen=True, slots=True)
class Note:
    """What was left out, as the rest of a sentence behind the document's name.

    Args:
        what: was left out.
        lacks: it was left out because a library is not installed.
    """

    what: str
    lacks: bool = False


Part = Text | Page | Chapter | Note


class Refused(Exception):
    """A document that cannot be read.

    Args:
        why: the rest of a sentence behind its name, such as ``is encrypted``.
        hint: what to do about it.
    """

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint

    @property
    def ends_all(self) -> bool:
        """Whether it is about the whole document: it unpacks to more than it may."""
        return self.why.startswith("unpacks to")


def lacking(name: str, error: ModuleNotFoundError) -> Note:
    """The note about a document within another one that only a missing library can read."""
    package = str(error.name).partition(".")[0]
    return Note(f"{name} is left out, as {package} is not installed", lacks=True)


class Budget:
    """How much a document may unpack to; shared by all that lies in it.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = self._left = most

    def take(self, count: int) -> None:
        """So many bytes were unpacked, or are about to be.

        Raises:
            Refused: it is more than the document may have.
        """
        self._left -= count
        if self._left < 0:
            raise Refused(
                f"unpacks to more than {self.most >> 20:,} MiB",
                "Unpack it yourself, and give the files that matter.",
            )


class Extract(Protocol):
    """Reads one kind of document."""

    def __call__(self, file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
        """The parts of a document.

        Args:
            file: it can be read anywhere.
            name: what it is called; for what it holds, never to open anything.
            budget: what it may unpack to.
            depth: archives and letters it lies in.

        Raises:
            Refused: it cannot be read.
        """


def reader(module: str) -> Extract:
    """What reads a kind of document.

    Args:
        module: of this package.

    Raises:
        ModuleNotFoundError: a library it needs is missing.
    """
    found = importlib.import_module(f"allmem_runtime.documents.{module}")
    return cast(Extract, found.extract)
