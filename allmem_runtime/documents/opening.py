"""Opens a source of any kind: a document as its text, everything else as the runtime has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.documents.extraction import MOST_NOTES, extract
from allmem_runtime.documents.kinds import HEAD_BYTES, Kind, kind_of
from allmem_runtime.quantities import counted
from allmem_runtime.text.sources import Source, location, open_source


def open_any(
    name: str, stdin: BinaryIO, encoding: str, tell: Callable[[str], None], called: str = ""
) -> Source:
    """A file by its path, or standard input for ``-``.

    Args:
        name: the path.
        stdin: standard input.
        encoding: of a plain text; by default what it seems to be in.
        tell: told what was left out of a document, and which encoding a text seems to be in.
        called: what to call it, where that is not its name without its folder.

    Raises:
        SourceError: it cannot be read; see ``open_source`` and ``extract``.
    """
    kind = None if name == "-" else _kind(name)
    if kind is None:
        return open_source(name, stdin, encoding, tell, called)
    path = Path(name)
    called = called or path.name
    text = extract(path, kind, called)
    for note in text.notes[:MOST_NOTES]:
        tell(f"{called}: {note}.")
    if len(text.notes) > MOST_NOTES:
        tell(f"{called}: {counted(len(text.notes) - MOST_NOTES, 'thing')} more left out.")
    return Source(called, text.size, path=path, location=location(path), document=text)


def _kind(name: str) -> Kind | None:
    """The kind of a regular file; None of what cannot be looked into, which is told elsewhere."""
    path = Path(name)
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return kind_of(file.read(HEAD_BYTES), path.name)
    except (OSError, ValueError):
        return None
