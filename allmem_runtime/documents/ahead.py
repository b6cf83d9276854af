"""Opens documents in a thread, in their order, while what comes before them is read."""

from __future__ import annotations

import threading
from collections.abc import Callable

from allmem_runtime.text.sources import Source

_POLL_SECONDS = 0.1

Tell = Callable[[str], None]


class Coming:
    """A document that is being opened, or will be.

    Args:
        open_it: opens it, given whom to tell what was left out of it.
    """

    def __init__(self, open_it: Callable[[Tell], Source]) -> None:
        self._open = open_it
        self._done = threading.Event()
        self._told: list[str] = []
        self._source: Source | None = None
        self._error: BaseException | None = None

    def open(self) -> None:
        """Open it; called once."""
        try:
            self._source = self._open(self._told.append)
        except BaseException as error:  # whoever waits for the document is told
            self._error = error
        finally:
            self._done.set()

    def wait(self, tell: Tell, stop: Callable[[], bool]) -> Source | None:
        """The document; None where it is to stop before it is there.

        Args:
            tell: told what was left out of it.
            stop: whether to; asked often.

        Raises:
            SourceError: it cannot be read.
        """
        while not self._done.wait(_POLL_SECONDS):
            if stop():
                return None
        for what in self._told:
            tell(what)
        if self._error is not None:
            raise self._error
        return self._source


class Ahead:
    """Opens what it is given in the order in which it is given, one at a time."""

    def __init__(self) -> None:
        self._coming: list[Coming] = []

    def add(self, open_it: Callable[[Tell], Source]) -> Coming:
        """Something to be opened; before ``start``."""
        self._coming.append(coming := Coming(open_it))
        return coming

    def start(self) -> None:
        """Begin."""
        if self._coming:
            threading.Thread(target=self._run, name="allmem documents", daemon=True).start()

    def _run(self) -> None:
        for coming in self._coming:
            coming.open()
