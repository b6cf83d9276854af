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
    passages: list[str] = []
    heads: list[str] = []
    names = random.sample(wordings.NOUNS, 64)
    tail = 0
    while budget > _SHORTEST:
        heads.append("\n\n" + title.format(name=names.pop().capitalize()) + ":\n")
        wanted = min(budget, random.randrange(_SHORTEST, _LONGEST))
        text = _names(random) if random.random() < 0.35 else _gather(prose, 6 * wanted)
        _, places = tokens.encode_with_offsets(text)
        passages.append(text[: places[:wanted][-1][1]])
        size = tokens.count(passages[-1]) + tokens.count(heads[-1])
        budget -= size
        tail += size
    again = random.sample(range(len(passages)), len(passages))
    filler: list[str] = []
    room = length - 2 * tail
    for paragraph in prose:
        part = ("\n\n" if filler else "") + paragraph
        size = tokens.count(part)
        if size > room:
            break
        filler.append(part)
        room -= size
    # The first occurrences lie between paragraphs anywhere in the first half of the filler.
    gaps = [random.randrange(len(filler) // 2 + 1) for _ in passages]
    told = list(zip(gaps, heads, passages, strict=True))
    while True:
        text, repeated = _text(filler, told, again)
        ids, places = tokens.encode_with_offsets(text)
        if len(ids) <= length or not filler:
            break
        filler.pop()  # joints are encoded otherwise than their parts
    counts = np.zeros(len(ids), bool)
    starts = np.array([start for start, _ in places])
    for begin, end in repeated:
        counts |= (starts >= begin) & (starts < end)
    return Sequence(np.array(ids[:length], np.int64), counts[:length], "repeats", split, source)


def _text(
    filler: list[str], told: list[tuple[int, str, str]], again: list[int]
) -> tuple[str, list[tuple[int, int]]]:
    """The whole text, and where in it the passages stand for the second time.

    Args:
        filler: paragraphs.
        told: before which paragraph each passage stands at first, its title, and itself.
        again: in which order they come again.
    """
    parts: list[str] = []
    for place in range(len(filler) + 1):
        parts += [head + passage for gap, head, passage in told if min(gap, len(filler)) == place]
        parts += filler[place : place + 1]
    text, repeated = "".join(parts), []
    for number in again:
        _, head, passage = told[number]
        begin = len(text) + len(head)
        text += head + passage
        repeated.append((begin, len(text)))
    return text, repeated


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
