"""The time of day as chat templates ask for it."""

from __future__ import annotations

from datetime import datetime

_LONGEST_FORM = 256


def written_now(form: str) -> str:
    """The local time in a form as ``strftime`` takes it.

    Raises:
        ValueError: the form could write more than a date.
    """
    if any(character.isdigit() for character in form) or len(form) > _LONGEST_FORM:
        raise ValueError("a width in a time format is refused")
    return datetime.now().strftime(form)
