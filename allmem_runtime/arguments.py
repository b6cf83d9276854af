"""Arguments of the Python API: one named error for a value that cannot be meant."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from allmem_runtime.errors import UsageError


def check_text(name: str, value: Any) -> None:
    """Refuse what is no text.

    Raises:
        UsageError: names the argument and the value, as all of these do.
    """
    check_kind(name, value, str, "Give a text.")


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], hint: str) -> None:
    """Refuse a value of another kind, with a sentence that says what to give instead."""
    if not isinstance(value, kind):
        raise refused(name, value, hint)


def as_count(name: str, value: Any, hint: str) -> int:
    """A whole number from 0 on, NumPy's too; True and False are none."""
    try:
        count = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = -1
    if count < 0:
        raise refused(name, value, hint)
    return count


def as_list(name: str, value: Any, kind: type, hint: str) -> list[Any]:
    """The items of whatever can be iterated over, each of one kind."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refused(name, value, hint)
    items = list(value)
    for item in items:
        check_kind(f"An item of {name}", item, kind, hint)
    return items


def as_path(name: str, value: Any) -> Path:
    """The path of a file."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise refused(name, value, "Give the path of a file.")
    return Path(text)


def refused(name: str, value: Any, hint: str) -> UsageError:
    """The error for a value of an argument."""
    return UsageError(f"{name} is {value!r:.80}.", hint)
