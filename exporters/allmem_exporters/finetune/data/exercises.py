"""Makes a training sequence of a given length: a document with facts, questions at its end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.tokens import Tokens
from allmem_exporters.finetune.data.wordings import BRIEFLY, LEADS

SHUFFLED = "shuffled"
HIDDEN = "hidden"
HIDDEN_IN_ORDER = "hidden in order"

_SENTENCE_END = re.compile(r"(?<=[a-z0-9\")][.!?]) (?=[A-Z\"(])")
_SPARE = 24
"""Tokens left free for joints that are encoded otherwise than their parts."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """What a document must hold, and what is asked about it.

    Attributes:
        kind: such as ``needle``.
        source: for a person to read.
        facts: what the answers are found in.
        questions: (question, answer).
        filler: endless or not; what fills the document up to its length.
        placing: ``shuffled`` among the filler, or ``hidden`` between sentences of it, possibly
            ``hidden in order``.
        joint: between the parts of the document.
        lead: instructs the model what the document is for; None for one of the usual.
    """

    kind: str
    source: str
    facts: list[str]
    questions: list[tuple[str, str]]
    filler: Iterator[str]
    placing: str = SHUFFLED
    joint: str = "\n\n"
    lead: str | None = None


def write_exercise(
    exercise: Exercise, tokens: Tokens, length: int, split: str, random: Random
) -> Sequence:
    """The document as the first user message, the questions and answers as turns after it.

    Raises:
        DataError: facts and questions alone are longer than ``length``.
    """
    lead = random.choice(LEADS) if exercise.lead is None else exercise.lead
    briefly = random.choice(BRIEFLY)

    def messages(document: str) -> list[dict[str, str]]:
        turns = []
        for number, (question, answer) in enumerate(exercise.questions):
            asked = f"{briefly} {question}".strip()
            if number == 0:
                asked = f"{lead}{document}\n\n{asked}"
            turns += [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answer},
            ]
        return turns

    joint = tokens.count(exercise.joint)
    needed = len(tokens.conversation(messages(""))[0]) + _SPARE
    needed += sum(tokens.count(fact) + joint for fact in exercise.facts)
    if needed > length:
        raise DataError(
            f"A {exercise.kind} sequence needs {needed} tokens for its facts and questions alone; "
            f"the length is {length}.",
            "Make longer sequences, or ask fewer questions in each.",
        )
    filler: list[str] = []
    for text in exercise.filler:
        size = tokens.count(text) + joint
        if needed + size > length:
            break
        filler.append(text)
        needed += size
    while True:
        document = _document(exercise, filler, random)
        ids, counts = tokens.conversation(messages(document))
        if len(ids) <= length:
            return Sequence(ids, counts, exercise.kind, split, exercise.source)
        if not filler:
            raise DataError(f"A {exercise.kind} sequence does not fit into {length} tokens.")
        filler.pop()


def _document(exercise: Exercise, filler: list[str], random: Random) -> str:
    if exercise.placing == SHUFFLED:
        parts = [*exercise.facts, *filler]
        random.shuffle(parts)
    else:
        parts = _hide(exercise.facts, filler, random, ordered=exercise.placing == HIDDEN_IN_ORDER)
    return exercise.joint.join(parts)


def _hide(facts: list[str], paragraphs: list[str], random: Random, *, ordered: bool) -> list[str]:
    """Put each fact at a place drawn evenly from all sentence ends of the paragraphs."""
    sentences = [_SENTENCE_END.split(paragraph) for paragraph in paragraphs]
    places = [
        (number, place)
        for number, parts in enumerate(sentences)
        for place in range(1, len(parts) + 1)
    ]
    if not places:
        return list(facts)
    drawn = sorted(random.choice(places) for _ in facts)
    if not ordered:
        facts = random.sample(facts, len(facts))
    for (number, place), fact in reversed(list(zip(drawn, facts, strict=True))):
        sentences[number].insert(place, fact)
    return [" ".join(parts) for parts in sentences]


def distinct(make: Callable[[], str], number: int, taken: set[str]) -> list[str]:
    """So many different values that were not taken yet; they are now."""
    values: list[str] = []
    while len(values) < number:
        value = make()
        if value not in taken:
            taken.add(value)
            values.append(value)
    return values
