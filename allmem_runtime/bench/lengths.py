"""Depths and prompt sizes as people type them: ``2k`` is 2,048, ``1M`` is 1,048,576, ``0`` is 0."""

from __future__ import annotations

import re

from allmem_runtime.errors import UsageError

MAX_TOKENS = 1 << 30
_FORM = re.compile(r"([0-9]{1,10})([kM]?)\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20}


def parse(text: str, option: str, least: int) -> list[int]:
    """Several numbers of tokens with commas between, ascending and each once.

    Args:
        text: what was typed.
        option: its name, for messages.
        least: the smallest that can be meant.

    Raises:
        UsageError: one of them is no number of tokens, or out of range.
    """
    found = set()
    for part in text.split(","):
        match = _FORM.match(part.strip())
        value = int(match[1]) * _UNITS[match[2].lower()] if match else -1
        if not least <= value <= MAX_TOKENS:
            raise UsageError(
                f"{option}: {part.strip()!r} is no number of tokens.",
                f"Give numbers from {least} on with commas between, such as 2k,8k,1M.",
            )
        found.add(value)
    return sorted(found)


def name(tokens: int) -> str:
    """The shortest way to write it."""
    for unit, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if tokens and tokens % unit == 0:
            return f"{tokens // unit}{letter}"
    return str(tokens)
