"""How the benchmark of documents compares the order of words."""

from __future__ import annotations

import random

from benchmarks.documents.order import common, moved


def longest(one: list[str], other: list[str]) -> int:
    """By the definition, a row at a time."""
    row = [0] * (len(other) + 1)
    for word in one:
        before, row = row, [0]
        for at, met in enumerate(other):
            row.append(before[at] + 1 if met == word else max(row[-1], before[at + 1]))
    return row[-1]


def test_longest_common_subsequence_is_that_of_its_definition() -> None:
    draw = random.Random(1)
    for _ in range(60):
        one, other = ([draw.choice("abcde") for _ in range(draw.randrange(900))] for _ in "ab")
        length, left, others_left = common(one, other)
        assert length == longest(one, other)
        assert len([word for word in left if word]) == len(one) - length
        assert len([word for word in others_left if word]) == len(other) - length
        assert len([word for word in left if word]) + length == len(one)


def test_passages_that_stand_elsewhere_count_once() -> None:
    table, story = list("abcdef"), list("uvwxyz")
    one, other = table + story, story + table + table[:5]
    length, *left = common(one, other)
    assert (length, moved(*left)) == (6, 6)
    assert moved(list("abcd"), list("abcd")) == 0
