"""Needles in a haystack: numbers to be kept in mind, by depth in the text and its length.

Every document holds one needle at each depth and is read once; each needle is asked of that same
reading. The other needles are in the way, as in a real text, so this is harder than one needle.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from allmem_runtime.errors import SourceError, UsageError
from allmem_runtime.evaluation.items import Item, Question
from allmem_runtime.quantities import format_tokens

MAX_ANSWER = 24
DIGITS = 7

_PLACES = (
    "bakery", "boathouse", "brewery", "chapel", "creamery", "dairy", "depot", "ferry", "foundry",
    "gatehouse", "granary", "greenhouse", "harbour", "library", "lighthouse", "lodge", "market",
    "mill", "museum", "observatory", "orchard", "pharmacy", "quarry", "sawmill", "school",
    "shipyard", "stable", "theatre", "tollhouse", "vineyard", "windmill", "workshop",
)  # fmt: skip
_WHO = (
    "the carpenter", "a visitor", "the night watchman", "an old friend", "the gardener",
    "her neighbor", "the teacher", "a traveller", "the clerk", "his sister",
)  # fmt: skip
_DID = (
    "walked along the river", "repaired the fence", "waited for the train", "read the newspaper",
    "carried the baskets home", "talked about the weather", "lit a small fire", "swept the yard",
    "counted the boats", "closed the shutters", "wrote a long letter", "picked apples",
)  # fmt: skip
_WHEN = (
    "in the early morning", "after the rain", "before supper", "on the first warm day",
    "while the bells rang", "as every year", "without a word", "for most of the afternoon",
    "when the market was over", "late in the autumn",
)  # fmt: skip

_SENTENCE_END = re.compile(r"(?<=[.!?]) ")

Count = Callable[[str], int]
"""Tokens of a text."""


def needle_items(
    lengths: Sequence[int],
    depths: int,
    samples: int,
    seed: int,
    count: Count,
    overhead: int,
    haystack: Sequence[str] | None = None,
) -> list[Item]:
    """Documents with needles, for each length in turn.

    Args:
        lengths: tokens of the whole prompt and the answer.
        depths: needles a document, evenly from its beginning to its end.
        samples: documents of each length.
        seed: equal seeds, equal documents.
        count: tokens of a text.
        overhead: tokens the chat template adds.
        haystack: sentences to hide the needles in; made up if there are none.

    Raises:
        UsageError: a length holds no haystack, or there are too many depths.
    """
    if not 1 <= depths <= len(_PLACES):
        raise UsageError(f"There cannot be {depths} depths.", f"Give 1 to {len(_PLACES)}.")
    items = []
    for length in lengths:
        for sample in range(samples):
            rng = random.Random(f"{seed} {length} {sample}")
            items.append(_item(length, depths, sample, rng, count, overhead, haystack))
    return items


def needle_score(answer: str, question: Question, item: Item) -> float:
    """100 if the number is in the answer."""
    return 100.0 if question.references[0] in answer else 0.0


def sentences(path: Path) -> list[str]:
    """The sentences of a text file, roughly: what ends in a stop and a space.

    Raises:
        SourceError: it cannot be read, or holds no sentence.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}).", "Check it.") from None
    found = [part for part in _SENTENCE_END.split(" ".join(text.split())) if part.strip(" .!?")]
    if not found:
        raise SourceError(f"{path} holds no sentence.", "Name a text.")
    return found


def _item(
    length: int, depths: int, sample: int, rng: random.Random, count: Count, overhead: int,
    haystack: Sequence[str] | None,
) -> Item:  # fmt: skip
    places = rng.sample(_PLACES, depths)
    numbers = [str(rng.randrange(10 ** (DIGITS - 1), 10**DIGITS)) for _ in places]
    needles = [
        f"The key number of the {place} is {number}."
        for place, number in zip(places, numbers, strict=True)
    ]
    head = "Some key numbers are hidden in the following text. Remember them.\n\n"
    questions = tuple(
        Question(
            f"\n\nWhat is the key number of the {place}?",
            f" The key number of the {place} is",
            (number,),
            MAX_ANSWER,
            {"depth": round(100 * i / max(1, depths - 1))},
        )
        for i, (place, number) in enumerate(zip(places, numbers, strict=True))
    )
    asked = max(count(question.text + question.prefix) for question in questions)
    room = length - overhead - asked - MAX_ANSWER - count(head + " ".join(needles))
    hay = _hay(room, rng, count, haystack)
    if len(hay) < depths:
        raise UsageError(
            f"A prompt of {length} tokens has no room for {depths} needles.",
            "Ask for longer texts or fewer --depths.",
        )
    budget = length - overhead - asked - MAX_ANSWER
    while True:
        # The last needle stands at the very end of the text.
        cuts = [math.ceil(i * len(hay) / max(1, depths - 1)) for i in range(depths)]
        parts: list[str] = []
        for cut, following, needle in zip(cuts, [*cuts[1:], len(hay)], needles, strict=True):
            parts += [needle, *hay[cut:following]]
        document = head + " ".join(parts)
        over = count(document) - budget
        if over <= 0 or len(hay) <= depths:
            break
        del hay[-max(1, over // 20) :]
    return Item("needle", format_tokens(length), sample, document, questions)


def _hay(room: int, rng: random.Random, count: Count, haystack: Sequence[str] | None) -> list[str]:
    """Sentences that together take about this many tokens."""
    source = _made_up(rng) if haystack is None else _from(haystack, rng)
    hay, taken, known = [], 0, dict[str, int]()
    while taken < room:
        sentence = next(source)
        if sentence not in known:
            known[sentence] = max(1, count(" " + sentence))
        taken += known[sentence]
        hay.append(sentence)
    return hay[:-1]


def _made_up(rng: random.Random) -> Iterator[str]:
    while True:
        who, did, when = rng.choice(_WHO), rng.choice(_DID), rng.choice(_WHEN)
        yield f"{who[0].upper()}{who[1:]} {did} {when}."


def _from(haystack: Sequence[str], rng: random.Random) -> Iterator[str]:
    at = rng.randrange(len(haystack))
    while True:
        yield haystack[at % len(haystack)]
        at += 1
