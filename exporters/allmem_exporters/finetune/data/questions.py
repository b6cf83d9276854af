"""Questions with their paragraphs from SQuAD and HotpotQA, split so that nothing leaks.

RULER asks the questions of the same files in the order in which they stand, SQuAD's unanswerable
ones left out. The first ``reserved`` of that order belong to neither side, with all their
paragraphs, so that the evaluation asks about texts that training never saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.documents import Document
from allmem_exporters.finetune.data.sequence import HELDOUT, SPLITS, TRAIN
from allmem_exporters.finetune.data.splits import split_of
from allmem_runtime.strict_json import parse_json

RESERVED = 500
"""Questions that RULER asks by default."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about paragraphs.

    Attributes:
        text: the question.
        answer: a few words.
        evidence: paragraphs in which the answer stands.
        distractors: paragraphs on near subjects.
    """

    text: str
    answer: str
    evidence: tuple[str, ...]
    distractors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """The questions of a file that may be used, and all paragraphs of each side.

    Attributes:
        questions: by split.
        paragraphs: by split; those of one are in no question of the other, nor reserved.
        reserved: paragraphs kept out of both.
    """

    questions: dict[str, list[Question]]
    paragraphs: dict[str, list[str]]
    reserved: frozenset[str]

    def documents(self, split: str) -> list[Document]:
        """Each paragraph as a document."""
        return [Document(p[:40], (p,), split) for p in self.paragraphs[split]]


@dataclass(frozen=True, slots=True)
class _Item:
    question: Question
    group: str  # what shares a side: an article of SQuAD, a question of HotpotQA


def read_questions(path: Path, kind: str, heldout: float, reserved: int = RESERVED) -> Collection:
    """Read a file and decide the side of each question and paragraph.

    A paragraph of a held-out question is held out wherever else it occurs, and a reserved one is
    reserved: training questions lose it as a distractor, or are dropped if it is their evidence.

    Args:
        path: a JSON file.
        kind: ``squad`` (sides by article) or ``hotpotqa`` (by question).
        heldout: fraction to hold out.
        reserved: questions from the start that belong to neither side.

    Raises:
        DataError: the file cannot be read or is laid out otherwise; names it and the place.
    """
    try:
        data = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    try:
        items = list((_squad if kind == "squad" else _hotpotqa)(data))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{path} is not laid out as {kind}: {error!r}.") from error
    kept_groups = {item.group for item in items[:reserved]}
    sides = {
        item.group: None if item.group in kept_groups else split_of(item.group, heldout)
        for item in items
    }
    owner: dict[str, str | None] = {}
    for side in (TRAIN, HELDOUT, None):  # a later side takes paragraphs from an earlier one
        for item in items:
            if sides[item.group] == side:
                for paragraph in (*item.question.evidence, *item.question.distractors):
                    owner[paragraph] = side
    questions: dict[str, list[Question]] = {split: [] for split in SPLITS}
    for item in items:
        question, split = item.question, sides[item.group]
        if split is None or any(owner[p] != split for p in question.evidence):
            continue
        if question.answer and question.answer.lower() not in ("yes", "no"):
            near = tuple(p for p in question.distractors if owner[p] == split)
            questions[split].append(
                Question(question.text, question.answer, question.evidence, near)
            )
    return Collection(
        questions,
        {split: sorted(p for p, side in owner.items() if side == split) for split in SPLITS},
        frozenset(p for p, side in owner.items() if side is None),
    )


def _squad(data: Any) -> Iterator[_Item]:
    for article in data["data"]:
        contexts = tuple(paragraph["context"].strip() for paragraph in article["paragraphs"])
        for paragraph, context in zip(article["paragraphs"], contexts, strict=True):
            near = tuple(other for other in contexts if other != context)
            for asked in paragraph["qas"]:
                if asked.get("is_impossible", False):
                    continue
                answers = Counter(answer["text"].strip() for answer in asked["answers"])
                answer = answers.most_common(1)[0][0]
                question = Question(asked["question"].strip(), answer, (context,), near)
                yield _Item(question, article["title"])


def _hotpotqa(data: Any) -> Iterator[_Item]:
    for asked in data:
        titles = {title for title, _ in asked["supporting_facts"]}
        paragraphs = [
            (title, f"{title}\n{''.join(lines).strip()}") for title, lines in asked["context"]
        ]
        evidence = tuple(text for title, text in paragraphs if title in titles)
        near = tuple(text for title, text in paragraphs if title not in titles)
        question = Question(asked["question"].strip(), asked["answer"].strip(), evidence, near)
        yield _Item(question, asked["question"])
