"""What the words of a question count: rare ones much, those that are everywhere nothing.

A word counts by how rare it is in this very text, so no list of stop words of any language is
needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from allmem_runtime.passages.about_texts import about_texts
from allmem_runtime.passages.store import Store
from allmem_runtime.passages.words import asking, expressions, pairs, parts, word_of

LEAST_SHARE = 0.1
"""Share of the question's weight that a passage must hold: one telling word of it. People ask in
other words than the text's."""

LEAST_SHARE_OF_WHOLE = 0.5
"""The same where the question speaks of the text itself: it may well ask for all of it."""

COMMON_SHARE = 0.2
"""A word in more of the passages than these tells nothing, as long as another is rarer."""

NAMED_SHARE = 0.05
"""A name of words that no more of the passages hold fits wherever it stands: a question may ask
for several things, and each of them is a small part of it."""

FEW = 2
"""Passages that are few in a short text too."""

EARLIER = (0.1, 0.05)
"""What the words of the turns before the question count, the last one first."""

EARLIER_LEANT_ON = (1.0, 0.5)
"""The same where the question says little itself, such as "And when was that?"."""

TELLING_SHARE = 0.01
"""A word that no more of the passages hold says what a question is about; without one, it leans on
the turns before."""

ASIDE = 0.3
"""What a word counts that stands in a sentence beside the one that asks."""

ASIDES = 0.25
"""What all of them together count at most, beside the words that ask: how to answer is often told
in more words than what is asked."""

UNSEEN = 0.5
"""What a word that the text never uses counts, beside the rarest that it does use."""

PAIR = 0.7
"""What two words count that follow each other in the question and in the text, beside a word."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a question looks for.

    Args:
        words: expressions to what each counts.
        least: what a passage must hold to fit.
        names: expressions of which each is enough.
        silent: expressions that order passages and make none fit.
        turns: what asks and the turns before it, each with what it counts.
        of_text: whether the question speaks of the text itself, and may ask for all of it.
    """

    words: dict[str, float]
    least: float
    names: frozenset[str]
    silent: frozenset[str]
    turns: tuple[tuple[str, float], ...]
    of_text: bool


def weigh(store: Store, question: str, earlier: Sequence[str], last: int) -> Weights | None:
    """Weigh the words of a question, after the turns before it.

    Args:
        store: the passages.
        question: of the user.
        earlier: turns before it, the last one last.
        last: number of the last passage.

    Returns:
        The weights; None if nothing in the question is rare in the text.
    """
    asks, beside = asking(question)
    counts = _counts(store, asks, last)
    if beside and not _telling(counts, last):  # "And who is that?": the other sentences ask
        asks, beside = question, ""
        counts = _counts(store, asks, last)
    factors = {e: PAIR if len(parts(word_of(e))) > 1 else 1.0 for e in counts}
    factors |= dict.fromkeys(expressions(asks), 1.0)
    asides = set(expressions(beside)) - set(factors)
    factors |= dict.fromkeys(asides, ASIDE)
    own = set(factors)
    leans = not any(0 < counts[e] <= max(1, TELLING_SHARE * last) for e in expressions(asks))
    turns = list(zip(reversed(earlier), EARLIER_LEANT_ON if leans else EARLIER, strict=False))
    for turn, factor in turns:
        for expression in expressions(turn):
            factors.setdefault(expression, factor)
    counts |= {e: store.count(e, last) for e in factors if e not in counts}
    if not _telling(counts, last):
        return None
    words = {
        e: factor * _weight(counts[e], last)
        for e, factor in factors.items()
        if _is_rare(counts[e], last, COMMON_SHARE) and (counts[e] or factor != PAIR)
    }
    speaking = about_texts(asks)
    # What a question about the text asks for it names itself, or it asks for the whole.
    before = words.keys() - own if speaking else set()
    whole = sum(weight for e, weight in words.items() if e not in asides | before)
    words = _limited(
        {e: w for e, w in words.items() if counts[e] or e not in asides}, asides, ASIDES * whole
    )
    silent = {e for e in words if word_of(e) in speaking} | before
    names = _names(counts, words.keys() - before, last)
    return Weights(
        words,
        whole * (LEAST_SHARE_OF_WHOLE if speaking else LEAST_SHARE),
        frozenset(e for e in names if speaking.isdisjoint(parts(word_of(e)))),
        frozenset(silent | asides if speaking else silent),
        ((asks, 1.0), *turns),
        bool(speaking),
    )


def _counts(store: Store, text: str, last: int) -> dict[str, int]:
    """How many passages hold each expression of a text, those of two words last."""
    return {e: store.count(e, last) for e in [*expressions(text), *pairs(text)]}


def _is_rare(count: int, last: int, share: float) -> bool:
    return count <= max(FEW, share * last)


def _telling(counts: dict[str, int], last: int) -> bool:
    """Whether any expression is in the text, and not everywhere."""
    return any(count and _is_rare(count, last, COMMON_SHARE) for count in counts.values())


def _weight(count: int, last: int) -> float:
    rarity = math.log(1 + (last - count + 0.5) / (count + 0.5))
    return rarity if count else UNSEEN * rarity


def _limited(words: dict[str, float], some: set[str], most: float) -> dict[str, float]:
    """The weights, those of some words made smaller so that together they count ``most``."""
    total = sum(weight for e, weight in words.items() if e in some)
    if total <= most:
        return words
    return {e: w * most / total if e in some else w for e, w in words.items()}


def _names(counts: dict[str, int], words: Iterable[str], last: int) -> Iterator[str]:
    """Expressions of several words, all of them rare, that the text has."""
    for expression in words:
        own = parts(word_of(expression))
        if len(own) > 1 and counts[expression] and _is_rare(counts[expression], last, NAMED_SHARE):
            each = [counts.get(e) for word in own for e in expressions(word)]
            if all(n is not None and _is_rare(n, last, NAMED_SHARE) for n in each):
                yield expression
