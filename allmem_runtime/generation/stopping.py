"""Stop strings: what may be shown of a text that is still being written."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Ends a stream at the first stop string and never shows a part of one.

    The stop string whose last character comes first ends the stream (of several that end
    there, the longest), so the result does not depend on how the stream was cut.

    Args:
        stop: texts that end the stream; they are not shown. None may be empty.

    Attributes:
        stopped: whether a stop string was found; what comes later is swallowed.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that is certain not to belong to a stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        keep = max((self._overlap(text, s) for s in self._stop), default=0)
        shown = len(text) - keep
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """What was held back and turned out to be text; empty after a stop."""
        text, self._held = self._held, ""
        return text

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of ``text`` that is a beginning of ``stop``."""
        for length in range(min(len(text), len(stop) - 1), 0, -1):
            if text.endswith(stop[:length]):
                return length
        return 0
