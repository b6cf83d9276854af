"""Says once why the text of a session cannot be used, wherever that is noticed."""

from __future__ import annotations

from collections.abc import Callable

from allmem_runtime.errors import AllMemError
from allmem_runtime.session.session import Session


class TextFailures:
    """Looks at sessions for a failure that was not told yet.

    Args:
        tell: is given the text for people.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[str] = set()

    def look(self, session: Session) -> None:
        """Tell why a session answers from its state alone, if there is a reason."""
        failure = session.text_failure
        if failure and failure not in self._told:
            self._told.add(failure)
            self._tell(failure)

    def untold(self, error: AllMemError) -> str:
        """An error in words that were not told yet; it counts as told then."""
        self._told.add(str(error))
        return error.message if error.hint in self._told else str(error)
