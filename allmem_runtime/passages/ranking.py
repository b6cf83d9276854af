"""Which passages fit a question, the best first.

A passage fits if it holds a fair share of what is rare in the question, or a name of it. Those
that fit are ordered by the words they share with the question. Where the model's embedding is at
hand, those fit too that come nearest to the question by what they mean, and all are ordered by how
much they are like it in both ways.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence

from allmem_runtime.passages import meaning
from allmem_runtime.passages.likeness import Judge, Likeness
from allmem_runtime.passages.rows import Mark
from allmem_runtime.passages.store import Store
from allmem_runtime.passages.weights import Weights
from allmem_runtime.passages.words import likeness

CANDIDATES = 400
"""Passages that are compared with the question by likeness, those first that share its words."""

NEAREST = 128
"""Passages that are compared with it too, those nearest to it by what they mean."""

LEAST_COSINE = 0.2
"""Of a passage among those: what is about something else comes as near by chance."""

MEANING = 0.7
"""What a cosine counts beside the likeness of tokens, which goes from 0 to 1 too."""

COMPARED = 64
"""Passages at least, if the text has as many, that tell how rare a token is."""

FEW_CANDIDATES = 64
"""Passages that are ordered by words alone."""

Ranked = tuple[int, float, set[str]]
"""A passage's number, its score, and the question's names in it."""


def by_words(weights: dict[str, float]) -> Judge:
    """Who judges parts of passages by the words of a question and what each counts."""
    return lambda texts: [likeness(text, weights) for text in texts]


def by_likeness(
    store: Store, until: Mark, last: int, asked: Weights, like: Likeness
) -> tuple[list[Ranked], Judge]:
    """The passages by their likeness to what is asked, the best first, and who judges parts.

    Passages are told apart by what few of them have. A part is judged by what is rare in the text
    as a whole: a name that is asked for may be in every passage that fits.

    Args:
        store: the passages.
        until: up to where they count.
        last: number of the last passage.
        asked: what the question looks for.
        like: compares tokens.
    """
    ranked = fitting(store, asked, last, CANDIDATES)
    cosines = store.meanings(asked.turns, last)
    if not asked.of_text:  # "what is it about?" is near to much and asks for none of it
        ranked += _nearest(cosines, {number for number, _, _ in ranked})
    # The index and the vectors of a damaged file may name passages that are not there.
    rows = [
        (row.text, number, names)
        for number, _, names in ranked
        if (row := store.row(number, until)) is not None
    ]
    texts = [text for text, _, _ in rows]
    others = set(_evenly(last, COMPARED - len(rows))) - {number for _, number, _ in rows}
    beside = [row.text for number in sorted(others) if (row := store.row(number, until))]
    among = _by_tokens(asked, texts, like)
    found = [
        (number, score + MEANING * max(0.0, cosines.get(number, 0.0)), names)
        for (_, number, names), score in zip(rows, among(texts), strict=True)
    ]
    order = sorted(found, key=lambda item: (-item[1], item[0]))
    tokens = _by_tokens(asked, [*texts, *beside], like) if beside else among
    return order, _and_by_meaning(asked, tokens) if cosines else tokens


def _nearest(cosines: dict[int, float], known: set[int]) -> list[Ranked]:
    """Passages that come nearest by what they mean, without those that are known to fit."""
    near = heapq.nlargest(NEAREST, ((cosine, -number) for number, cosine in cosines.items()))
    return [
        (-number, 0.0, set())
        for cosine, number in near
        if cosine >= LEAST_COSINE and -number not in known
    ]


def _by_tokens(asked: Weights, compared: Sequence[str], like: Likeness) -> Judge:
    """Who judges by likeness of tokens, each counting the more the fewer of some texts have it."""
    judges = [(factor, like(text, compared)) for text, factor in asked.turns]

    def judge(parts: Sequence[str]) -> Sequence[float]:
        each = [[factor * score for score in one(parts)] for factor, one in judges]
        return [sum(scores) for scores in zip(*each, strict=True)]

    return judge


def _and_by_meaning(asked: Weights, tokens: Judge) -> Judge:
    """Who judges by likeness of tokens and by what parts mean."""
    made = meaning.shared()
    if made is None:
        return tokens
    vectors = made.of([text for text, _ in asked.turns])
    factors = [factor for _, factor in asked.turns]

    def judge(parts: Sequence[str]) -> Sequence[float]:
        if not parts:
            return []
        near = (made.of(parts) @ vectors.T @ factors).clip(0).tolist()
        return [score + MEANING * cosine for score, cosine in zip(tokens(parts), near, strict=True)]

    return judge


def _evenly(last: int, count: int) -> list[int]:
    """Numbers of as many passages from the first to the last, of all if there are fewer."""
    count = min(last, count)
    return [1 + place * last // count for place in range(count)]


def fitting(store: Store, weights: Weights, last: int, most: int = FEW_CANDIDATES) -> list[Ranked]:
    """The passages that fit by their words, the best first.

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
        matches = store.matches(expression, last)
        # SQLite's BM25 of one word is its own weight for rarity times what the passage gives.
        rarity = max(math.log(max(1e-9, (last - len(matches) + 0.5) / (len(matches) + 0.5))), 1e-6)
        for number, score in matches:
            scores[number] += weight * score / rarity
            held[number] += 0.0 if expression in weights.silent else weight
            if expression in weights.names:
                names[number].add(expression)
    least = weights.least * (1 - 1e-9)  # sums of the same numbers, in another order
    found = [
        (number, score, names[number])
        for number, score in scores.items()
        if held[number] >= least or names[number]
    ]
    return sorted(found, key=lambda item: (-item[1], item[0]))[:most]
