"""Puts statements at even depths into real texts of their kind: between paragraphs, lines, blocks.

Depths are drawn within equal parts of a text, so that none of it is left out, and no statement is
put within a paragraph, a line of a log or a function.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from allmem_runtime.errors import UsageError

_ENDS = {
    "log": re.compile(r"\n"),
    # A blank line that something unindented follows, so that no function is torn apart.
    "code": re.compile(r"\n(?:[ \t\r]*\n)+(?=[^\s)\]}])"),
}
_PARAGRAPH = re.compile(r"\n(?:[ \t\r]*\n)+")
_LINE = _ENDS["log"]


@dataclass(frozen=True, slots=True)
class Statement:
    """Something to be hidden.

    Args:
        kind: of the texts that it goes into.
        text: what it says.
        fact: number of the fact that it is; None for one that is in the way of others.
    """

    kind: str
    text: str
    fact: int | None = None


@dataclass(frozen=True, slots=True)
class Hidden:
    """A text with statements in it.

    Args:
        text: all of it.
        spans: for each fact by its number, characters before it and up to its end.
        tokens: of the parts before they were put together; the whole has about as many.
    """

    text: str
    spans: dict[int, tuple[int, int]]
    tokens: int


def hide(
    texts: Mapping[str, str],
    statements: Sequence[Statement],
    tokens: int,
    seed: int,
    count: Callable[[str], int],
) -> Hidden:
    """Equal shares of texts of each kind, one after the other, with statements between their parts.

    Args:
        texts: by kind; of each its beginning is taken.
        statements: what goes into them.
        tokens: of the whole, statements included.
        seed: equal seeds, equal depths.
        count: tokens of a text.

    Raises:
        UsageError: a statement has no text of its kind, or a text is too short for its share.
    """
    if missing := {statement.kind for statement in statements} - set(texts):
        raise UsageError(
            f"There is no text of the kind {min(missing)!r}.", f"Give --texts {min(missing)}=FILE."
        )
    draw = random.Random(seed)
    parts: list[str] = []
    spans: dict[int, tuple[int, int]] = {}
    length = taken = 0
    for kind, text in texts.items():
        own = [statement for statement in statements if statement.kind == kind]
        room = tokens // len(texts) - sum(count(statement.text) + 2 for statement in own)
        units, sizes = _beginning(kind, text, room, count)
        taken += sum(sizes) + tokens // len(texts) - room
        places = _places(own, sizes, draw)
        for number, unit in enumerate([*units, ""]):
            for statement in places.get(number, ()):
                told = _told(statement)
                if statement.fact is not None:
                    spans[statement.fact] = (length, length + len(statement.text.strip("\n")))
                parts.append(told)
                length += len(told)
            parts.append(unit)
            length += len(unit)
    return Hidden("".join(parts), spans, taken)


def parts_of(kind: str, text: str) -> list[str]:
    """A text in parts that a statement may stand between; together they are the text."""
    pattern = _ENDS.get(kind, _PARAGRAPH)
    if kind not in _ENDS and len(_PARAGRAPH.findall(text)) < len(text) // 20_000:
        pattern = _LINE  # it has no paragraphs to speak of
    ends = [match.end() for match in pattern.finditer(text)]
    bounds = [0, *ends, *([len(text)] if not ends or ends[-1] < len(text) else [])]
    return [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _beginning(
    kind: str, text: str, room: int, count: Callable[[str], int]
) -> tuple[list[str], list[int]]:
    """As many parts as there is room for, and the tokens of each."""
    units: list[str] = []
    sizes: list[int] = []
    left = room
    for unit in parts_of(kind, text):
        size = count(unit)
        if size > left:
            break
        units.append(unit)
        sizes.append(size)
        left -= size
    else:
        raise UsageError(
            f"The texts of the kind {kind!r} have {sum(sizes):,} tokens of {room:,} wanted.",
            "Give more texts of it, or ask for fewer --tokens.",
        )
    if units:
        units[-1] = units[-1].rstrip("\n") + ("\n" if kind == "log" else "\n\n")
    return units, sizes


def _places(
    statements: Sequence[Statement], sizes: Sequence[int], draw: random.Random
) -> dict[int, list[Statement]]:
    """Statements by the number of the part that they stand before.

    Facts and those in their way are drawn apart, so that each have even depths.
    """
    ends = list(accumulate(sizes))
    total = ends[-1] if ends else 0
    found: dict[int, list[Statement]] = {}
    for are_facts in (True, False):
        group = [statement for statement in statements if (statement.fact is not None) == are_facts]
        draw.shuffle(group)
        for number, statement in enumerate(group):
            depth = (number + draw.random()) / len(group) * total
            found.setdefault(bisect_right(ends, depth), []).append(statement)
    for group in found.values():
        draw.shuffle(group)
    return found


def _told(statement: Statement) -> str:
    return statement.text.strip("\n") + ("\n" if statement.kind == "log" else "\n\n")
