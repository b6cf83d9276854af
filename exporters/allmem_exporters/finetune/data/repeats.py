"""Passages that occur early and again much later; the second time, every token counts."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np

from allmem_exporters.finetune.data import wordings
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.tokens import Tokens

_SHORTEST, _LONGEST = 60, 320
"""Tokens of one passage."""


def repeats(
    tokens: Tokens, prose: Iterator[str], length: int, split: str, source: str, random: Random
) -> Sequence:
    """Prose with titled passages in its first part, and the same passages at its end.

    A title announces each passage, so that it can be known which one comes again. About a third
    of the passages are lists of random names, which nothing but memory can predict.

    Args:
        tokens: of the checkpoint.
        prose: paragraphs; endless.
        length: at most so many tokens.
        split: on which side the prose is.
        source: for a person to read.
        random: draws everything.
    """
    title = random.choice(wordings.REPEAT_TITLES)
    budget = length // 4
    passages: list[list[int]] = []
    heads: list[list[int]] = []
    names = random.sample(wordings.NOUNS, 64)
    while budget > _SHORTEST:
        heads.append(tokens.encode("\n\n" + title.format(name=names.pop().capitalize()) + ":\n"))
        wanted = min(budget, random.randrange(_SHORTEST, _LONGEST))
        text = _names(random) if random.random() < 0.35 else _gather(prose, 6 * wanted)
        passages.append(tokens.encode(text)[:wanted])
        budget -= len(passages[-1]) + len(heads[-1])
    again = random.sample(range(len(passages)), len(passages))
    tail = sum(len(passages[i]) + len(heads[i]) for i in again)
    filler: list[list[int]] = []
    room = length - 2 * tail
    for paragraph in prose:
        part = tokens.encode(("\n\n" if filler else "") + paragraph)
        if len(part) > room:
            break
        filler.append(part)
        room -= len(part)
    # The first occurrences lie between paragraphs anywhere in the first half of the filler.
    gaps = [random.randrange(len(filler) // 2 + 1) for _ in passages]
    ids: list[int] = []
    for place in range(len(filler) + 1):
        for gap, head, passage in zip(gaps, heads, passages, strict=True):
            if gap == place:
                ids += head + passage
        ids += filler[place] if place < len(filler) else []
    counts = [False] * len(ids)
    for number in again:
        ids += heads[number] + passages[number]
        counts += [False] * len(heads[number]) + [True] * len(passages[number])
    return Sequence(np.array(ids, np.int64), np.array(counts, bool), "repeats", split, source)


def _gather(prose: Iterator[str], characters: int) -> str:
    parts: list[str] = []
    size = 0
    for paragraph in prose:
        parts.append(paragraph)
        size += len(paragraph)
        if size >= characters:
            break
    return "\n\n".join(parts)


def _names(random: Random) -> str:
    people = (
        f"{random.choice(wordings.FIRST_NAMES)} {random.choice(wordings.LAST_NAMES)}, "
        f"{random.choice(wordings.ADJECTIVES)} {random.choice(wordings.NOUNS)} "
        f"{random.randrange(10, 1000)}"
        for _ in range(60)
    )
    return "\n".join(people)
