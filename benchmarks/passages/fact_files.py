"""Facts, statements in their way, and texts, from files that somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_runtime.errors import SourceError, UsageError
from benchmarks.passages.hiding import Statement


@dataclass(frozen=True, slots=True)
class GivenFact:
    """Something told once, and a question for it.

    Args:
        kind: of the texts that it belongs into.
        text: as it is told.
        question: that asks for it.
        answers: any of which is right.
    """

    kind: str
    text: str
    question: str
    answers: tuple[str, ...]


def read_facts(path: Path) -> list[GivenFact]:
    """Facts of a JSON list of ``{"kind", "text", "question", "answers"}``.

    Raises:
        SourceError: the file cannot be read.
        UsageError: it holds something else.
    """
    facts = []
    for number, value in enumerate(_list(path), 1):
        if not isinstance(value, dict) or not all(
            isinstance(value.get(name), str) and value[name].strip()
            for name in ("kind", "text", "question")
        ):
            raise _wrong(path, number, '"kind", "text" and "question" are to be texts')
        answers = value.get("answers")
        if not _texts(answers) or not answers:
            raise _wrong(path, number, '"answers" is to be a list of texts')
        facts.append(GivenFact(value["kind"], value["text"], value["question"], tuple(answers)))
    if not facts:
        raise UsageError(f"{path} holds no fact.")
    return facts


def read_texts(path: Path) -> list[str]:
    """A JSON list of texts, or what a file of facts tells without its questions.

    Raises:
        SourceError: the file cannot be read.
        UsageError: it holds something else.
    """
    values = [value["text"] if isinstance(value, dict) and "text" in value else value
              for value in _list(path)]  # fmt: skip
    for number, value in enumerate(values, 1):
        if not isinstance(value, str) or not value.strip():
            raise _wrong(path, number, "it is to be a text")
    return values


def statements(facts: Sequence[GivenFact], decoys: Sequence[str]) -> list[Statement]:
    """What is hidden: the facts, and decoys, each of the kind of the fact it is in the way of.

    Raises:
        UsageError: there are decoys, but not one for each fact.
    """
    if decoys and len(decoys) != len(facts):
        raise UsageError(f"There are {len(decoys)} decoys for {len(facts)} facts.")
    told = [Statement(fact.kind, fact.text, number) for number, fact in enumerate(facts)]
    pairs = zip(facts, decoys, strict=False)
    return told + [Statement(fact.kind, decoy) for fact, decoy in pairs]


def kinds_of_texts(given: Sequence[str]) -> dict[str, str]:
    """The texts of each kind, one after the other, from ``KIND=FILE`` arguments.

    Raises:
        UsageError: an argument has another form.
        SourceError: a file cannot be read.
    """
    texts: dict[str, str] = {}
    for argument in given:
        kind, equals, name = argument.partition("=")
        if not equals or not kind or not name:
            raise UsageError(f"{argument!r} is not KIND=FILE.", "Such as --texts log=syslog.")
        text = _read(Path(name)).replace("\r\n", "\n").replace("\0", " ")
        texts[kind] = texts[kind].rstrip("\n") + "\n\n" + text if kind in texts else text
    return texts


def _list(path: Path) -> list[Any]:
    try:
        values = json.loads(_read(path))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error}).") from None
    if not isinstance(values, list):
        raise UsageError(f"{path} is not a JSON list.")
    return values


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}).", "Check it.") from None


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value)


def _wrong(path: Path, number: int, what: str) -> UsageError:
    return UsageError(f"{path}: entry {number} is not as expected: {what}.")
