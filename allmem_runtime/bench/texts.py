"""The text a benchmark reads, as tokens; one that is too short begins again."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from allmem_runtime.errors import SourceError
from allmem_runtime.quantities import format_bytes
from allmem_runtime.text.tokenizer import Tokenizer

MAX_TEXT_BYTES = 1 << 28


class Text:
    """A text as an endless row of tokens.

    Args:
        name: for people.
        ids: its tokens, at least one.

    Attributes:
        digest: SHA-256 of its tokens.
    """

    def __init__(self, name: str, ids: Sequence[int]) -> None:
        self.name = name
        self.ids = list(ids)
        self.digest = hashlib.sha256(np.array(self.ids, "<i8").tobytes()).hexdigest()

    def part(self, first: int, last: int) -> list[int]:
        """Tokens ``first`` to ``last``; after the end comes the beginning."""
        found: list[int] = []
        while first < last:
            at = first % len(self.ids)
            piece = self.ids[at : at + last - first]
            found += piece
            first += len(piece)
        return found


def read_text(path: Path | None, tokenizer: Tokenizer) -> Text:
    """A file as tokens, or Python's own manual, which every installation has.

    Raises:
        SourceError: the file cannot be read, is too long or empty, or there is no manual here.
    """
    if path is None:
        name, text = "Python's manual", _manual()
    else:
        name, text = path.name, _file(path)
    ids = tokenizer.encode_text(text)
    if not ids:
        raise SourceError(f"{path} holds no text.", "Name another file.")
    return Text(name, ids)


def _file(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise SourceError(
                f"{path} is larger than {format_bytes(MAX_TEXT_BYTES)}.",
                "A part of it will do: a text that ends begins again.",
            )
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None


def _manual() -> str:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise SourceError(
            "This Python comes without its manual, so there is nothing to read.",
            "Name a text with --text FILE.",
        ) from None
    return "\n\n".join(topics[name] for name in sorted(topics))
