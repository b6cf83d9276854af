"""Finds out what is new in folders and files, or changed, once it stays as it is for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from allmem_runtime.documents.folders import named
from allmem_runtime.documents.named import Named
from allmem_runtime.documents.opening import kind_at
from allmem_runtime.errors import SourceError

MOST_LOOKS = 5
"""A text that never stays as it is, such as a log, is taken after so many looks all the same."""
_SHARE = 0.1
"""Most of the time that looking may take, however many files there are."""
_NAP_SECONDS = 0.1

_Mark = tuple[int, int, int]
"""By which a changed file is known: its size, its time, and its number on the disk."""


class Watcher:
    """Watches what names stand for. What is there when it is made counts as seen.

    Args:
        names: paths of files and folders, and patterns.
        seconds: between two looks, and as long a file stays as it is before it is taken.
    """

    def __init__(self, names: Sequence[str], seconds: float) -> None:
        self._names = list(names)
        self._seconds = seconds
        self._took = 0.0
        self._marks: dict[str, _Mark] = {}  # at the last look
        self._waits: dict[str, int] = {}  # looks since a file began to change
        self.gone: list[str] = []
        self._seen = {item.path: self._marks[item.path] for item in self._look()}

    def wait(self, stop: Callable[[], bool]) -> list[Named]:
        """Wait until something changed; empty where it is to stop.

        Args:
            stop: whether to; asked often.
        """
        while True:
            end = time.monotonic() + max(self._seconds, self._took / _SHARE)
            while (left := end - time.monotonic()) > 0:
                if stop():
                    return []
                time.sleep(min(left, _NAP_SECONDS))
            if (found := self.changed()) or self.gone:
                return found

    def changed(self) -> list[Named]:
        """Look once: the files that are new or changed since they were taken.

        Those that are gone are in ``gone`` until the next look.
        """
        before = self._marks
        items = self._look()
        taken = []
        for item in items:
            mark = self._marks[item.path]
            if mark == self._seen.get(item.path):
                continue
            looks = self._waits.get(item.path, 0) + 1
            if mark == before.get(item.path) or (looks > MOST_LOOKS and not kind_at(item.path)):
                self._seen[item.path] = mark
                self._waits.pop(item.path, None)
                taken.append(item)
            else:
                self._waits[item.path] = looks
        self.gone = [path for path in self._seen if path not in self._marks]
        for path in self.gone:
            del self._seen[path]
        return taken

    def _look(self) -> list[Named]:
        """All files there are now."""
        began = time.monotonic()
        items = []
        for name in self._names:
            try:
                items += list(named([name], lambda said: None))
            except SourceError:  # a pattern that fits nothing any more, or too many files
                continue
        self._marks = {}
        for item in items:
            try:
                status = os.stat(item.path)
            except OSError:
                continue
            self._marks[item.path] = (status.st_size, status.st_mtime_ns, status.st_ino)
        self._took = time.monotonic() - began
        return [item for item in items if item.path in self._marks]
