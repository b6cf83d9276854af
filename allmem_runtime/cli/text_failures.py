"""Says once why the text of a session cannot be used, wherever that is noticed."""

from __future__ import annotations

from collections.abc import Callable

from allmem_runtime.session.session import Session


class TextFailures:
    """Looks at sessions for a failure that was not told yet.

    Args:
        tell: is given the text for people.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = ""

    def look(self, session: Session) -> None:
        """Tell why a session answers from its state alone, if there is a reason."""
        if session.text_failure and session.text_failure != self._told:
            self._told = session.text_failure
            self._tell(session.text_failure)
