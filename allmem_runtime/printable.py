"""Text from outside, made fit to be shown: it moves no cursor, forges no line, turns no text round.

Names of files, models and sources, what models and error messages quote, and answers may hold the
control sequences of a terminal.
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # in Persian words and in emoji of several parts
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """A name or a message as one line: what is no visible character is escaped as Python does it.

    Line ends are escaped too, so nothing that is quoted in a message can look like another.
    """
    return "".join(c if _shows(c) else _escaped(c) for c in text)


def for_terminal(text: str) -> str:
    """A text of any number of lines, with U+FFFD for what would control a terminal or its reader.

    These are control characters but line ends and tabs, overrides and embeddings of the writing
    direction, and halves of surrogate pairs.

    Raises:
        TypeError: it is no text; click finds out so which streams take bytes.
    """
    if not isinstance(text, str):
        raise TypeError(f"{type(text).__name__} is no text")
    return "".join("\ufffd" if _controls(c) else c for c in text)


def _shows(character: str) -> bool:
    return (
        character.isprintable()
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"  # as in names in Japanese
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _controls(character: str) -> bool:
    if character in "\n\t":
        return False
    return character in _TURNING or unicodedata.category(character) in ("Cc", "Cs")
