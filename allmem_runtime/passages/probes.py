"""Questions made of a text itself: what follows a beginning that occurs once in it.

They are chosen by the text alone, without knowing what any model can answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from allmem_runtime.passages.rows import Row
from allmem_runtime.passages.words import sentences

_RARE = re.compile(r"\b(?:\d[\d.,:]*\d|\d+|[^\W\d_a-zß-ÿ][^\W\d_]{2,})\b")
"""A number, or a word with a capital."""

_WORD = re.compile(r"\w+")
_LEAST_BEFORE = 24
"""Characters of a sentence that lead to what is asked for; fewer could lead anywhere."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A beginning, and the rare word that follows it in the text and occurs nowhere else.

    Args:
        before: the sentence up to the word.
        answer: the word.
        distance: tokens read since.
    """

    before: str
    answer: str
    distance: int


def probes(
    rows: Sequence[Row], position: int, edges: Sequence[int], each: int
) -> list[list[Probe]]:
    """Probes by distance, at even depths within each range of distances.

    Args:
        rows: the passages of the text, in order.
        position: tokens the session has read.
        edges: ends of the ranges, in tokens back, ascending; the last range has all beyond.
        each: most of a range.

    Returns:
        For each range, its probes, the farthest first.
    """
    counts = Counter(word for row in rows for word in _WORD.findall(row.text.casefold()))
    ranges: list[list[Probe]] = [[] for _ in range(len(edges) + 1)]
    for probe in _candidates(rows, position, counts):
        ranges[sum(probe.distance > edge for edge in edges)].append(probe)
    return [_even(found, each) for found in ranges]


def _candidates(rows: Iterable[Row], position: int, counts: Counter[str]) -> Iterator[Probe]:
    rows = list(rows)
    for number, row in enumerate(rows):
        following = rows[number + 1].token if number + 1 < len(rows) else position
        for at, sentence in sentences(row.text):
            for match in _RARE.finditer(sentence, _LEAST_BEFORE):
                before = sentence[: match.start()]
                parts = _WORD.findall(match.group().casefold())
                if all(counts[part] == 1 for part in parts) and not before.isspace():
                    passed = (at + match.start()) / len(row.text)
                    token = row.token + int(passed * max(0, following - row.token))
                    yield Probe(before, match.group(), position - token)
                    break  # one of a sentence


def _even(found: list[Probe], most: int) -> list[Probe]:
    if len(found) <= most:
        return found
    return [found[(2 * number + 1) * len(found) // (2 * most)] for number in range(most)]
