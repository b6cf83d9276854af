"""Endless iteration over documents, for tasks that need prose or distractors around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from allmem_exporters.finetune.data.documents import Document

_LONG = 1500
"""Characters beyond which a paragraph is cut at a sentence's end, so that lengths can be met."""
_SENTENCE_END = re.compile(r"(?<=[a-z0-9\")][.!?]) (?=[A-Z\"(])")


def prose(documents: list[Document], random: Random) -> Iterator[str]:
    """Paragraphs in their own order from random places of random documents, without end.

    Long documents are chosen more often, in proportion to their length.
    """
    sizes = [sum(map(len, document.paragraphs)) for document in documents]
    while True:
        (document,) = random.choices(documents, sizes)
        start = random.randrange(len(document.paragraphs))
        for paragraph in document.paragraphs[start:]:
            yield from _pieces(paragraph)


def distractors(
    near: list[str], others: list[str], taken: set[str], random: Random
) -> Iterator[str]:
    """Near paragraphs first, then any others; none twice, and none of those taken."""
    for paragraph in random.sample(near, len(near)):
        if paragraph not in taken:
            taken.add(paragraph)
            yield paragraph
    for _ in range(4 * len(others)):
        paragraph = random.choice(others)
        if paragraph not in taken:
            taken.add(paragraph)
            yield paragraph


def _pieces(paragraph: str) -> Iterator[str]:
    if len(paragraph) <= _LONG:
        yield paragraph
        return
    held: list[str] = []
    for sentence in _SENTENCE_END.split(paragraph):
        held.append(sentence)
        if sum(map(len, held)) > _LONG // 2:
            yield " ".join(held)
            held = []
    if held:
        yield " ".join(held)
