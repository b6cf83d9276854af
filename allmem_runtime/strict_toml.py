"""Reads TOML that somebody else wrote: of bounded size, depth and numbers."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20
_MOST_INTEGER = 1 << 63  # what TOML promises


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and table of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than a mebibyte, not UTF-8 or not TOML, nested too deeply, or a
            number in it is not finite or beyond 64 bits.
    """
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES:,} bytes")
    text = data.decode()
    try:
        table = tomllib.loads(text, parse_float=_finite)
        _check(table)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return text, table


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _check(value: Any) -> None:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner)
    elif isinstance(value, int) and not -_MOST_INTEGER <= value < _MOST_INTEGER:
        raise ValueError("an integer has more than 64 bits")
