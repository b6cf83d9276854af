"""Tells what was left out of a document, and what to install where that is why."""

from __future__ import annotations

from collections.abc import Callable

from allmem_runtime.documents.extraction import INSTALL, DocumentText
from allmem_runtime.quantities import counted

_MOST = 20


def tell_notes(text: DocumentText, called: str, tell: Callable[[str], None]) -> None:
    """Tell what was left out of a document."""
    for note in text.notes[:_MOST]:
        tell(f"{called}: {note}.")
    if len(text.notes) > _MOST:
        tell(f"{called}: {counted(len(text.notes) - _MOST, 'thing')} more left out.")
    if text.lacks:
        tell(INSTALL)
