"""Reads documents as lists of paragraphs; each paragraph is in training or held out, never both."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.html import html_to_text
from allmem_exporters.finetune.data.sequence import HELDOUT, TRAIN
from allmem_exporters.finetune.data.splits import fingerprint, split_of

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
HTML_SUFFIXES = (".html", ".htm", ".xhtml")

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_TELLING = 80
"""Characters from which a paragraph is taken for somebody's writing, not a heading or a word."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text that lies on one side.

    Attributes:
        name: for a person to read.
        paragraphs: without the empty lines between them.
        split: ``train`` or ``heldout``.
    """

    name: str
    paragraphs: tuple[str, ...]
    split: str

    @property
    def text(self) -> str:
        """The paragraphs with empty lines between them."""
        return "\n\n".join(self.paragraphs)


def find_files(patterns: Iterable[str], base: Path) -> list[Path]:
    """Readable files that paths, folders and patterns name, sorted, each once.

    Args:
        patterns: a file, a folder (searched throughout), or a pattern with ``*`` or ``**``.
        base: what relative paths start from.

    Raises:
        DataError: a pattern finds no file; names it.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = base / pattern
        if path.is_file():
            found.append(path)
            continue
        places = (
            [path] if path.is_dir() else [Path(p) for p in glob.glob(str(path), recursive=True)]
        )
        files = [
            file
            for place in places
            for file in (place.rglob("*") if place.is_dir() else [place])
            if file.is_file() and file.suffix.lower() in TEXT_SUFFIXES + HTML_SUFFIXES
        ]
        if not files:
            raise DataError(
                f"{pattern} (from {base}) names no text.",
                f"Read are files that end in {', '.join(TEXT_SUFFIXES + HTML_SUFFIXES)}.",
            )
        found += files
    return sorted(set(found))


def read_text(path: Path) -> str:
    """A file's text; HTML without its tags, damaged characters replaced.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return html_to_text(text) if path.suffix.lower() in HTML_SUFFIXES else text


def paragraphs_of(text: str) -> list[str]:
    """A text cut at its empty lines."""
    return [part.strip("\n").rstrip() for part in _PARAGRAPH.split(text) if part.strip()]


def separate(
    texts: Iterable[tuple[str, str]], heldout: float, seen: set[bytes] | None = None
) -> list[Document]:
    """Decide the side of each text, and let no longer paragraph occur twice.

    Held-out documents come first, so a paragraph that is in both remains held out; headings and
    other short lines may repeat. Documents that are mostly such lines are left out.

    Args:
        texts: (name, text) of each document.
        heldout: fraction of the documents to hold out.
        seen: fingerprints of paragraphs that must not occur; added to.
    """
    seen = set() if seen is None else seen
    sided = [(split_of(text, heldout), name, text) for name, text in texts]
    documents = []
    for side in (HELDOUT, TRAIN):
        for split, name, text in sided:
            if split != side:
                continue
            kept = []
            for paragraph in paragraphs_of(text):
                if len(paragraph) >= _TELLING:
                    mark = fingerprint(paragraph)
                    if mark in seen:
                        continue
                    seen.add(mark)
                kept.append(paragraph)
            # What is left of an index or of a page that repeats others is headings alone.
            if sum(len(p) for p in kept if len(p) >= _TELLING) > sum(map(len, kept)) / 2:
                documents.append(Document(name, tuple(kept), side))
    return documents
