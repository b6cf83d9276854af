"""The text beside a saved session, without its model: what it is, copying and deleting it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from allmem_runtime.errors import PassagesError, StorageError
from allmem_runtime.files.header import read_header
from allmem_runtime.passages import schema
from allmem_runtime.passages.keeping import Text


def text_info(session: Path) -> dict[str, Any] | None:
    """What text is kept of a saved session, as values that JSON knows; None if none is.

    Raises:
        SessionFileError: not a session file, or damaged.
    """
    at = _digest(session)
    if not at:
        return None
    path = schema.beside(session)
    values: dict[str, Any] = {"path": str(path), "digest": at, "bytes": None, "failure": ""}
    try:
        text = Text.beside(session, at)
        lengths = [len(row.text) for row in text.rows(at)]
        values |= {
            "bytes": text.nbytes,
            "passages": len(lengths),
            "characters": sum(lengths),
            "sources": [name for _, name in text.sources(at)],
        }
    except PassagesError as error:
        values["failure"] = str(error)
    return values


def copy_text(session: Path, target: Path, at: str) -> str:
    """Copy the text beside a session to beside another one.

    Args:
        session: whose text is copied.
        target: the other one.
        at: where the session stands in its text; empty where it has none.

    Returns:
        Why there is none to copy; empty if it was copied, or the session has none.
    """
    try:
        if at:
            with closing(Text.beside(session, at)) as text:
                text.save(at, target)
    except (PassagesError, StorageError) as error:
        return str(error)
    return ""


def delete_text(session: Path) -> None:
    """Delete the text beside a session, if there is one of ours."""
    path = schema.beside(session)
    if path.is_file() and not path.is_symlink() and schema.is_ours(path):
        schema.remove(path)


def _digest(session: Path) -> str:
    return read_header(session).metadata.get("text_digest", "")
