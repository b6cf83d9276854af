"""Lengths in tokens as people type them: ``2k`` is 2,048, ``2000`` is 2,000."""

from __future__ import annotations

import re

from allmem_runtime.errors import UsageError

MAX_LENGTH = 1 << 22
_FORM = re.compile(r"(\d+)(k?)\Z", re.IGNORECASE)


def parse_length(text: str) -> int:
    """One length.

    Raises:
        UsageError: it is no number of tokens, or out of range.
    """
    match = _FORM.match(text.strip())
    value = int(match[1]) * (1024 if match[2] else 1) if match else 0
    if not 1 <= value <= MAX_LENGTH:
        raise UsageError(
            f"{text!r} is no length.", f"Give tokens, such as 2k or 2000, up to {MAX_LENGTH:,}."
        )
    return value


def parse_lengths(text: str) -> list[int]:
    """Several lengths with commas between, ascending and unique."""
    return sorted({parse_length(part) for part in text.split(",")})


def length_name(length: int) -> str:
    """The shortest way to write it."""
    return f"{length // 1024}k" if length and length % 1024 == 0 else str(length)
