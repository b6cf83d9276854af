"""From a question to the passages that may hold its answer, and to none where none does.

A passage fits if it holds a fair share of what is rare in the question, or a name of it. Those
that fit are ordered by the words they share with the question, or where the model's embedding is at
hand, by how much they are like it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from allmem_runtime.passages.likeness import Judge, Likeness
from allmem_runtime.passages.store import Mark, Row, Store
from allmem_runtime.passages.weights import Weights, weigh
from allmem_runtime.passages.words import ends_of, expressions, likeness, sentences, word_of
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.text.places import TextPlace

NEAR = 0.6
"""Share of the best passage's score that another must have, unless it holds another name that is
asked for: what fits far less only distracts."""

AGAIN = 450
"""Characters of a passage that are read again: its best sentence and those around it."""

AGAIN_OF_LINES = 280
"""The same of lines, as of a log or code, which have less to do with each other."""

ENOUGH = 160
"""Characters of a paragraph that is read again without those around it."""

NEAR_BY_LIKENESS = 0.7
"""The same of scores by likeness."""

CANDIDATES = 400
"""Passages that are compared with the question by likeness, those first that share its words."""

COMPARED = 64
"""Passages at least, if the text has as many, that tell how rare a token is."""

_FEW_CANDIDATES = 64

_Ranked = tuple[int, float, set[str]]
"""A passage's number, its score, and the question's names in it."""


@dataclass(frozen=True, slots=True)
class _Found:
    number: int
    score: float
    row: Row
    names: set[str]


def search(
    store: Store,
    until: Mark,
    question: str,
    earlier: Sequence[str],
    most: int,
    tokens: int,
    count: Callable[[str], int],
    like: Likeness | None = None,
) -> list[Passage]:
    """The passages that fit a question best, the best first; see ``KeptText.find``.

    Those that follow each other in the text are joined.

    Raises:
        PassagesError: the store cannot be read.
    """
    if most < 1 or tokens < 1:
        return []
    last, question = store.last(until), ends_of(question)
    asked = weigh(store, question, [ends_of(turn) for turn in earlier], last)
    if asked is None:
        return []
    ranked = _ranked(store, asked, last, CANDIDATES if like else _FEW_CANDIDATES)
    near, judge = NEAR, _by_words(asked.words)
    if like:
        near = NEAR_BY_LIKENESS
        ranked, judge = _by_likeness(store, until, last, asked, ranked, like)
    chosen: list[_Found] = []
    left = tokens
    named: set[str] = set()
    for number, score, names in ranked:
        if score < near * ranked[0][1] and names <= named:
            continue
        row = store.row(number, until)
        if row is None or not row.text.strip():
            continue
        text = _fitting(row.text, judge, left // (most - len(chosen)), count)
        needed = count(text)
        if needed > left:
            continue
        before = row.text[: row.text.find(text)]
        chosen.append(_Found(number, score, _later(row, before, text, count), names))
        left -= needed
        named |= names
        if len(chosen) == most:
            break
    return [_passage(store, group, judge, count, asked.words) for group in _joined(chosen)]


def known(store: Store, until: Mark, question: str) -> float:
    """Share of the words of a question that the passages up to a mark have, from 0 to 1.

    Raises:
        PassagesError: the store cannot be read.
    """
    last, words = store.last(until), expressions(ends_of(question))
    return sum(store.count(word, last) > 0 for word in words) / max(1, len(words))


def _by_words(weights: dict[str, float]) -> Judge:
    return lambda texts: [likeness(text, weights) for text in texts]


def _by_likeness(
    store: Store, until: Mark, last: int, asked: Weights, ranked: list[_Ranked], like: Likeness
) -> tuple[list[_Ranked], Judge]:
    """The candidates in the order of their likeness, and who judges parts of them.

    Candidates are told apart by what few of them have. A part is judged by what is rare in the text
    as a whole: a name that is asked for may be in every candidate.
    """
    rows = [(store.row(number, until), number, names) for number, _, names in ranked]
    texts = [row.text if row else "" for row, _, _ in rows]
    others = set(_evenly(last, COMPARED - len(rows))) - {number for _, number, _ in rows}
    beside = [row.text for number in sorted(others) if (row := store.row(number, until))]

    def judge_among(compared: Sequence[str]) -> Judge:
        judges = [(factor, like(text, compared)) for text, factor in asked.turns]

        def judge(parts: Sequence[str]) -> Sequence[float]:
            each = [[factor * score for score in one(parts)] for factor, one in judges]
            return [sum(scores) for scores in zip(*each, strict=True)]

        return judge

    among = judge_among(texts)
    scores = among(texts)
    found = [(number, score, names) for (_, number, names), score in zip(rows, scores, strict=True)]
    order = sorted(found, key=lambda item: (-item[1], item[0]))
    return order, judge_among([*texts, *beside]) if beside else among


def _evenly(last: int, count: int) -> list[int]:
    """Numbers of as many passages from the first to the last, of all if there are fewer."""
    count = min(last, count)
    return [1 + place * last // count for place in range(count)]


def _ranked(store: Store, weights: Weights, last: int, most: int) -> list[_Ranked]:
    """The passages that fit, the best first.

    Args:
        store: the passages.
        weights: of the question's words.
        last: number of the last passage.
        most: how many at most.
    """
    scores: dict[int, float] = defaultdict(float)
    held: dict[int, float] = defaultdict(float)
    names: dict[int, set[str]] = defaultdict(set)
    for expression, weight in weights.words.items():
        found = store.matches(expression, last)
        # SQLite's BM25 of one word is its own weight for rarity times what the passage gives.
        rarity = max(math.log(max(1e-9, (last - len(found) + 0.5) / (len(found) + 0.5))), 1e-6)
        for number, score in found:
            scores[number] += weight * score / rarity
            held[number] += 0.0 if expression in weights.silent else weight
            if expression in weights.names:
                names[number].add(expression)
    least = weights.least * (1 - 1e-9)  # sums of the same numbers, in another order
    fitting = [
        (number, score, names[number])
        for number, score in scores.items()
        if held[number] >= least or names[number]
    ]
    return sorted(fitting, key=lambda item: (-item[1], item[0]))[:most]


def _fitting(text: str, judge: Judge, tokens: int, count: Callable[[str], int]) -> str:
    """The best sentence of a text and as many around it as are to be read again.

    Its paragraph comes first; of others something is added only to a short one.
    """
    parts = [part for _, part in sentences(text)]
    scores = judge(parts)
    first = last = max(range(len(parts)), key=scores.__getitem__)
    best = parts[first]
    while True:
        sides = [(first, last + 1), (first - 1, last)][:: -1 if (last - first) % 2 else 1]
        sides = [(a, b) for a, b in sides if a >= 0 and b < len(parts)]
        within = [(a, b) for a, b in sides if not _ends_paragraph(parts[a if a < first else last])]
        if not within and len(best.strip()) >= ENOUGH:
            return best
        for a, b in within or sides:
            wider = "".join(parts[a : b + 1])
            room = AGAIN_OF_LINES if "\n" in wider.strip() else AGAIN
            if len(wider) <= room and count(wider) <= tokens:
                first, last, best = a, b, wider
                break
        else:
            return best


def _ends_paragraph(part: str) -> bool:
    return part[len(part.rstrip()) :].count("\n") > 1


def _later(row: Row, before: str, text: str, count: Callable[[str], int]) -> Row:
    """A part of a passage, with its own place."""
    token = row.token + (count(before) if before else 0)
    line = row.line + before.count("\n")
    return Row(row.source, row.start + len(before), line, token, text)


def _joined(chosen: Sequence[_Found]) -> list[list[_Found]]:
    """Passages that follow each other in one group, the group of the best one first."""
    groups: list[list[_Found]] = []
    for found in sorted(chosen, key=lambda found: (found.row.source, found.row.start)):
        before = groups[-1][-1].row if groups else None
        if before and (before.source, before.start + len(before.text)) == (
            found.row.source,
            found.row.start,
        ):
            groups[-1].append(found)
        else:
            groups.append([found])
    return sorted(groups, key=lambda group: -max(found.score for found in group))


def _passage(
    store: Store,
    group: Sequence[_Found],
    judge: Judge,
    count: Callable[[str], int],
    words: dict[str, float],
) -> Passage:
    first = group[0].row
    text = "".join(found.row.text for found in group)
    parts = list(sentences(text))
    scores = judge([part for _, part in parts])
    at, sentence = parts[max(range(len(parts)), key=scores.__getitem__)]
    blank = len(sentence) - len(sentence.lstrip())
    line = first.line + text[: at + blank].count("\n")
    source = store.source(first.source)
    token = first.token + count(text[:at]) if at else first.token
    return Passage(
        place=TextPlace(source, first.line, first.start, first.token),
        text=text,
        score=max(found.score for found in group),
        tokens=count(text),
        sentence=" ".join(sentence.split()),
        sentence_place=TextPlace(source, line, first.start + at + blank, token),
        names=tuple(sorted({word_of(name) for found in group for name in found.names})),
        share=likeness(text, words) / max(sum(words.values()), 1e-9),
    )
