"""Put every item to every row, model by model, and keep each answer as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from allmem_runtime.evaluation.answering import Answer, Reader
from allmem_runtime.evaluation.items import Item, Question, Style
from allmem_runtime.evaluation.loading import BLOCK, Models
from allmem_runtime.evaluation.numbers import average, mean
from allmem_runtime.evaluation.results import Key, Record, Results
from allmem_runtime.evaluation.rows import Group, Row
from allmem_runtime.evaluation.tables import Table

Score = Callable[[str, Question, Item], float]
"""0 to 100 for an answer as it came."""

SCORING = 1
"""Raise it when scores of this package mean something else; it is kept beside each score."""


@dataclass(slots=True)
class Asking:
    """How a table of answers is made.

    Args:
        models: where models come from.
        style: how prompts are written.
        score: of an answer.
        results: where they are kept.
        say: told a line after each answer.
        extra: added to each result, such as the version of a benchmark.
        over: whether the time is over; asked before each answer.

    Attributes:
        rescored: kept answers that got another score or reference.
    """

    models: Models
    style: Style
    score: Score
    results: Results
    say: Callable[[str], None]
    extra: Record
    over: Callable[[], bool] = lambda: False
    rescored: int = 0

    def run(self, groups: Sequence[Group], items: Sequence[Item]) -> list[Record]:
        """The results of all rows for all items; what is known is not asked again.

        All rows answer a prompt before the next one comes, and every task and column has its
        first sample before any has its second: where the time ends, rows and tasks are even.
        """
        total = sum(len(group.rows) * len(item.questions) for group in groups for item in items)
        records = []
        for group in groups:
            for item in items:
                for _, _, known in self._each(group, item):
                    if known is not None:
                        records.append(known)
        together = self.models.all_fit(groups)
        readers: dict[Path, Reader] = {}
        for block in _blocks(in_turn(items), 1 if together else BLOCK):
            for group in groups:
                for item in block:
                    wanted = [(row, i) for row, i, known in self._each(group, item) if not known]
                    if not wanted:
                        continue
                    if self.over():
                        return records
                    folder = group.package.folder
                    if folder not in readers:
                        if not together:
                            readers.clear()
                        model = self.models.get(group.package)
                        readers[folder] = Reader(model, self.style)
                    for answer in readers[folder].answers(item, wanted):
                        records.append(self._keep(group, item, answer))
                        self._tell(records[-1], answer, f"{len(records)}/{total}")
                        if self.over():
                            return records
        return records

    def _each(self, group: Group, item: Item) -> Iterator[tuple[Row, int, Record | None]]:
        """Every row and question, and what is known of it, scored as scores are made now."""
        for row in group.rows:
            for index, question in enumerate(item.questions):
                prompt = self.style.digest(item, question)
                key: Key = (
                    row.name, group.package.digest, row.reset, item.task, item.column,
                    item.sample, index, prompt,
                )  # fmt: skip
                known = self.results.get(key)
                yield row, index, None if known is None else self._rescored(known, item, question)

    def _rescored(self, known: Record, item: Item, question: Question) -> Record:
        """A kept result whose answer is judged by the references and the scoring of now."""
        found = {**known, **self._judged(known["answer"], item, question)}
        if found != known:
            self.rescored += 1
            self.results.add(found)
        return found

    def _judged(self, answer: str, item: Item, question: Question) -> Record:
        return {
            **question.detail,
            **self.extra,
            "scoring": SCORING,
            "references": list(question.references),
            "score": self.score(answer, question, item),
        }

    def _keep(self, group: Group, item: Item, answer: Answer) -> Record:
        question = item.questions[answer.question]
        record: Record = {
            "row": answer.row.name,
            "model": group.package.digest,
            "reset": answer.row.reset,
            "task": item.task,
            "prompt": self.style.digest(item, question),
            "column": item.column,
            "sample": item.sample,
            "question": answer.question,
            "tokens": answer.tokens,
            "answer": answer.text,
            **self._judged(answer.text, item, question),
            "reading_seconds": round(answer.reading_seconds, 3),
            "answering_seconds": round(answer.answering_seconds, 3),
        }
        self.results.add(record)
        return record

    def _tell(self, record: Record, answer: Answer, place: str) -> None:
        self.say(
            f"[{place}] {answer.row.name}: {record['task']} {record['column']} "
            f"#{record['sample']}: {record['score']:.0f}  (read {answer.reading_seconds:.1f} s, "
            f"answered {answer.answering_seconds:.1f} s)"
        )


def in_turn(items: Sequence[Item]) -> list[Item]:
    """The first samples of all columns and tasks, then the second ones, and so on."""
    columns = list(dict.fromkeys(item.column for item in items))
    return sorted(items, key=lambda item: (item.sample, columns.index(item.column)))


def even(rows: Sequence[str], records: Sequence[Record]) -> list[Record]:
    """The results of prompts that all rows have answered: the only ones that compare."""
    by_prompt: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        key = tuple(record[name] for name in ("task", "column", "sample", "question"))
        by_prompt.setdefault(key, []).append(record)
    complete = [r for group in by_prompt.values() if len(group) == len(rows) for r in group]
    return complete


def _blocks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def table_of(
    title: str, rows: Sequence[str], columns: Sequence[str], records: Sequence[Record]
) -> Table:
    """A table of mean scores.

    Questions about one document are not independent: the samples of a cell are the documents,
    each with the mean of its questions.

    Args:
        title: of the table.
        rows: names in order.
        columns: names in order.
        records: results of one task; those of other rows or columns are left out.
    """
    table = Table(title, rows, columns)
    for row in rows:
        for column in columns:
            table.cells[row, column] = mean(list(_samples(records, row, column).values()))
    return table


def tables_of(
    tasks: Sequence[str], rows: Sequence[str], columns: Sequence[str], records: Sequence[Record]
) -> list[Table]:
    """A table of each task and, of several, one of their average, in which tasks count alike.

    Args:
        tasks: names in order.
        rows: names in order.
        columns: names in order.
        records: results of all tasks.
    """
    tables = [
        table_of(task, rows, columns, [r for r in records if r["task"] == task]) for task in tasks
    ]
    if len(tables) > 1:
        means = Table("average of all tasks", rows, columns)
        for key in tables[0].cells:
            means.cells[key] = average([table.cells[key] for table in tables])
        tables.append(means)
    return tables


def apart(
    base: str, rows: Sequence[str], columns: Sequence[str], records: Sequence[Record]
) -> Table:
    """How far the other rows are above one of them, document by document.

    All rows answered the same prompts, so the differences scatter less than the rows do. Tasks
    count alike; their samples are taken to be independent.
    """
    others = [row for row in rows if row != base]
    table = Table(f"points above {base!r}", others, columns)
    table.note = "Same prompts in both rows, so the errors are those of paired differences."
    tasks = list(dict.fromkeys(record["task"] for record in records))
    for column in columns:
        for row in others:
            found = []
            for task in tasks:
                own = [record for record in records if record["task"] == task]
                first, other = _samples(own, base, column), _samples(own, row, column)
                found.append(mean([other[s] - first[s] for s in other if s in first]))
            table.cells[row, column] = average([cell for cell in found if cell is not None])
    return table


def _samples(records: Sequence[Record], row: str, column: str) -> dict[int, float]:
    """The mean score of each document in a cell."""
    samples: dict[int, list[float]] = {}
    for record in records:
        if record["row"] == row and record["column"] == column:
            samples.setdefault(record["sample"], []).append(record["score"])
    return {sample: sum(scores) / len(scores) for sample, scores in samples.items()}
