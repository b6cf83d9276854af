"""Numbers of tokens, bytes and seconds, as people type and read them.

Tokens: ``512``, ``8k`` (8,192), ``1M`` (1,048,576). Bytes: ``4GiB``. Seconds: ``2m05s``.
"""

from __future__ import annotations

import re

from allmem_runtime.errors import UsageError

MAX_TOKENS = 1 << 30
_TOKENS = re.compile(r"([0-9]{1,10})([kM]?)\Z", re.IGNORECASE)
_TOKEN_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20}

BYTES_EXAMPLE = "Write it like 4GiB, 512MiB or 4294967296."
_BYTES = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)\s*([KMGT]?)(I?)(B?)\Z", re.IGNORECASE | re.ASCII)
_BYTE_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_tokens(text: str, least: int = 1, most: int = MAX_TOKENS) -> int:
    """One number of tokens.

    Args:
        text: what was typed.
        least: the smallest that can be meant.
        most: the largest.

    Raises:
        UsageError: it is no number of tokens, or out of range.
    """
    match = _TOKENS.match(text.strip())
    value = int(match[1]) * _TOKEN_UNITS[match[2].lower()] if match else -1
    if not least <= value <= most:
        allowed = f"{least} or more" if most == MAX_TOKENS else f"{least} to {format_tokens(most)}"
        raise UsageError(
            f"{text.strip()!r} is no number of tokens.", f"Give {allowed}, such as 512, 8k or 1M."
        )
    return value


def parse_token_list(text: str, least: int = 1) -> list[int]:
    """Several numbers of tokens with commas between, ascending and each once.

    Raises:
        UsageError: one of them is no number of tokens, or out of range.
    """
    return sorted({parse_tokens(part, least) for part in text.split(",")})


def format_tokens(count: int) -> str:
    """The shortest way to type a number of tokens: ``2k`` for 2,048, ``2000`` for 2,000."""
    for letter in ("m", "k"):
        unit = _TOKEN_UNITS[letter]
        if count and count % unit == 0:
            return f"{count // unit}{'M' if letter == 'm' else letter}"
    return str(count)


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: ``1 token``, ``2,048 tokens``.

    Args:
        count: how many.
        noun: one of them.
        plural: several, where an s does not do.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def parse_bytes(text: str, what: str = "The size") -> int:
    """Bytes from what was typed: ``4GiB``, ``4GB``, ``512m``, or a plain number of bytes.

    ``G``, ``GiB`` and ``GB`` alike are 1024^3, as cards and memory are sold.

    Args:
        text: what was typed.
        what: its name, for the message.

    Raises:
        UsageError: it is no size.
    """
    match = _BYTES.match(text.strip())
    if not match or (match[3] and not match[2]) or ("." in match[1] and not match[2]):
        raise UsageError(f"{what} {text!r} is no size.", BYTES_EXAMPLE)
    return int(float(match[1]) * 1024 ** _BYTE_POWERS[match[2].upper()])


def format_bytes(count: float) -> str:
    """Bytes for people: three digits and a binary unit."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    if unit == "B":
        return f"{int(count)} B"
    return f"{value:.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def format_duration(seconds: float) -> str:
    """A time for people: ``45s``, ``2m05s``, ``3h20m``, ``4d02h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
