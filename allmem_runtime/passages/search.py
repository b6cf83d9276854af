"""From a question to the passages that may hold its answer, and to none where none does.

``ranking`` says which passages fit and which of them fit best; here are the parts of them that are
to be read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from allmem_runtime.passages.likeness import Judge, Likeness
from allmem_runtime.passages.ranking import by_likeness, by_words, fitting
from allmem_runtime.passages.rows import Mark, Row
from allmem_runtime.passages.store import Store
from allmem_runtime.passages.weights import weigh
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
    if like:
        near, (ranked, judge) = NEAR_BY_LIKENESS, by_likeness(store, until, last, asked, like)
    else:
        near, ranked, judge = NEAR, fitting(store, asked, last), by_words(asked.words)
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
    passages = [_passage(store, group, judge, count, asked.words) for group in _joined(chosen)]
    return [replace(one, likeness=one.score) for one in passages] if like else passages


def known(store: Store, until: Mark, question: str) -> float:
    """Share of the words of a question that the passages up to a mark have, from 0 to 1.

    Raises:
        PassagesError: the store cannot be read.
    """
    last, words = store.last(until), expressions(ends_of(question))
    return sum(store.count(word, last) > 0 for word in words) / max(1, len(words))


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
        place=_place(store, first, source, 0, first.line, first.token),
        text=text,
        score=max(found.score for found in group),
        tokens=count(text),
        sentence=" ".join(sentence.split()),
        sentence_place=_place(store, first, source, at + blank, line, token),
        names=tuple(sorted({word_of(name) for found in group for name in found.names})),
        share=likeness(text, words) / max(sum(words.values()), 1e-9),
    )


def _place(store: Store, row: Row, source: str, behind: int, line: int, token: int) -> TextPlace:
    """The place of a character of a passage, so many behind its first, with page and chapter."""
    character = row.start + behind
    region = store.region(row.source, character)
    page, chapter = (region.page, region.chapter) if region else (0, "")
    return TextPlace(source, line, character, token, page, chapter)
