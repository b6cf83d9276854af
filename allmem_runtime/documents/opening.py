"""Opens a source of any kind: a document as its text, everything else as the runtime has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.documents.extraction import extract
from allmem_runtime.documents.kinds import HEAD_BYTES, Kind, kind_of
from allmem_runtime.documents.notes import tell_notes
from allmem_runtime.documents.piped import Piped
from allmem_runtime.text.sources import Source, location, open_source


def open_any(
    name: str,
    stdin: BinaryIO,
    encoding: str,
    tell: Callable[[str], None],
    called: str = "",
    *,
    live: bool = False,
) -> Source:
    """A file by its path, or standard input for ``-``.

    Args:
        name: the path.
        stdin: standard input.
        encoding: of a plain text; by default what it seems to be in. A table is read as the text
            it is where one is given, and so is a stream.
        tell: told what was left out of a document, and which encoding a text seems to be in.
        called: what to call it, where that is not its name without its folder.
        live: a stream may never end, so what can be read as the text it is, is read so.

    Raises:
        SourceError: it cannot be read; see ``open_source`` and ``extract``.
    """
    kind = None if name == "-" else kind_at(name)
    if kind is None or (encoding and kind.module == "rows"):
        source = open_source(name, stdin, encoding, tell, called)
        if source.stream is None or encoding:
            return source
        return dataclasses.replace(source, piped=Piped(source.name, tell, live=live))
    path = Path(name)
    called = called or path.name
    text = extract(path, kind, called)
    tell_notes(text, called, tell)
    return Source(called, text.size, path=path, location=location(path), document=text)


def kind_at(name: str) -> Kind | None:
    """The kind of a regular file; None of what cannot be looked into, which is told elsewhere."""
    path = Path(name)
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return kind_of(file.read(HEAD_BYTES), path.name)
    except (OSError, ValueError):
        return None
