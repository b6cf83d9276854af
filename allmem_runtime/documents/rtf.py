"""RTF by striprtf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.parts import Budget, Part, Text


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The text of an RTF document; see ``Extract``."""
    from striprtf.striprtf import rtf_to_text

    data = file.read()
    budget.take(len(data))
    yield Text(rtf_to_text(data.decode("cp1252", "replace"), errors="replace"))
