"""Tells what was left out of a document, and what to install where that is why."""

from __future__ import annotations

from collections.abc import Callable

from allmem_runtime.documents.extraction import INSTALL, DocumentText, MissingLibraryError
from allmem_runtime.errors import SourceError
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


class InstallOnce:
    """Tells what to install once for all that lack it, behind all else.

    Args:
        tell: told everything.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lacks = False

    def tell(self, what: str) -> None:
        """Tell it; what to install at the end."""
        if what == INSTALL:
            self._lacks = True
        else:
            self._tell(what)

    def left_out(self, error: SourceError) -> None:
        """Tell that something cannot be read, and is left out."""
        self._lacks = self._lacks or isinstance(error, MissingLibraryError)
        self._tell(f"Left out: {error.message}")

    def end(self) -> None:
        """Tell what to install, if anything lacks it."""
        if self._lacks:
            self._tell(INSTALL)
            self._lacks = False
