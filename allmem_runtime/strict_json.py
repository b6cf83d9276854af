"""Reads JSON that somebody else wrote: only what every reader takes for the same, and in bounds.

All files from outside go through here. What the values must be is for each format to say.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TypeGuard

_MOST_DIGITS = 64
"""Of an integer. Tokenizers write lengths of 31 digits for no limit; more would be work."""

_DEEPEST = 64
MOST_BYTES = 32 << 20
"""Of a file, where nothing else is said: what is made of it takes up to thirty times as much."""


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not UTF-8 or not JSON, nested too deeply, a key is there twice, a number is not
            finite or absurdly long, or a text holds half a character.
    """
    text = data if isinstance(data, str) else _decoded(data)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_not_a_number,
            parse_float=_finite,
            parse_int=_short,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(value):
        raise ValueError("it is nested too deeply")
    if "\\u" in text:
        _check_characters(value)
    return value


def parse_object(data: bytes | str) -> dict[str, Any]:
    """The same for a text that must hold an object.

    Raises:
        ValueError: it holds something else, too.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def read_object(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or not such an object.
    """
    with path.open("rb") as file:
        # Asked for more than there is, reading would reserve it all the same.
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it is larger than {most:,} bytes")
        return parse_object(file.read(size))


def is_whole(value: object, low: int, high: int) -> TypeGuard[int]:
    """Whether a value is an integer from ``low`` to ``high``; true and false are none."""
    return type(value) is int and low <= value <= high


def is_number(value: object, low: float, high: float) -> TypeGuard[float]:
    """Whether a value is a finite number from ``low`` to ``high``; true and false are none."""
    return type(value) in (int, float) and low <= value <= high  # type: ignore[operator]


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name[:80]!r} is there twice")
            seen.add(name)
    return result


def _not_a_number(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number JSON knows")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _short(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _is_deep(value: Any) -> bool:
    """Whether values are nested deeper than any format of ours; libraries recurse into them."""
    level = [value]
    for _ in range(_DEEPEST):
        containers = [inner for inner in level if isinstance(inner, dict | list)]
        if not containers:
            return False
        level = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]
    return True


def _check_characters(value: Any) -> None:
    """JSON can write halves of characters, which no file or terminal takes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text in it holds half a character (a lone surrogate)") from None
