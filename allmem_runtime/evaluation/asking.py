"""Put every item to every row, model by model, and keep each answer as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from allmem_runtime.evaluation.answering import Reader
from allmem_runtime.evaluation.items import Item, Question, Style
from allmem_runtime.evaluation.numbers import average, mean
from allmem_runtime.evaluation.results import Key, Record, Results
from allmem_runtime.evaluation.rows import Group, Row
from allmem_runtime.evaluation.tables import Table
from allmem_runtime.model import Model, load

Score = Callable[[str, Question, Item], float]
"""0 to 100 for an answer as it came."""


class Models:
    """Loads models, and keeps the last one: they are large, and are used one after the other.

    Args:
        device: where to run.
        operators: which operators.
        threads: CPU threads of a step.
    """

    def __init__(self, device: str, operators: str, threads: int | None) -> None:
        self._options = device, operators, threads
        self._kept: tuple[Path, Model] | None = None

    def get(self, folder: Path) -> Model:
        """The model of this folder."""
        if self._kept is None or self._kept[0] != folder:
            self._kept = None  # two at once may not fit
            device, operators, threads = self._options
            model = load(folder, device=device, operators=operators, threads=threads)
            self._kept = folder, model
        return self._kept[1]


@dataclass(frozen=True, slots=True)
class Asking:
    """How a table of answers is made.

    Args:
        models: where models come from.
        style: how prompts are written.
        score: of an answer.
        results: where they are kept.
        say: told a line after each answer.
        extra: added to each result, such as the version of a benchmark.
    """

    models: Models
    style: Style
    score: Score
    results: Results
    say: Callable[[str], None]
    extra: Record

    def run(self, groups: Sequence[Group], items: Sequence[Item]) -> list[Record]:
        """The results of all rows for all items; what is known is not asked again."""
        total = sum(len(group.rows) * len(item.questions) for group in groups for item in items)
        done, records = 0, []
        for group in groups:
            reader: Reader | None = None
            for item in items:
                wanted = []
                for row in group.rows:
                    for index in range(len(item.questions)):
                        known = self.results.get(self._key(group, row, item, index))
                        if known is None:
                            wanted.append((row, index))
                        else:
                            done += 1
                            records.append(known)
                if not wanted:
                    continue
                if reader is None:
                    reader = Reader(self.models.get(group.package.folder), self.style)
                for answer in reader.answers(item, wanted):
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
                        **question.detail,
                        **self.extra,
                        "tokens": answer.tokens,
                        "answer": answer.text,
                        "references": list(question.references),
                        "score": self.score(answer.text, question, item),
                        "reading_seconds": round(answer.reading_seconds, 3),
                        "answering_seconds": round(answer.answering_seconds, 3),
                    }
                    self.results.add(record)
                    records.append(record)
                    done += 1
                    self.say(
                        f"[{done}/{total}] {answer.row.name}: {item.task} {item.column} "
                        f"#{item.sample}: {record['score']:.0f}  "
                        f"(read {answer.reading_seconds:.1f} s, "
                        f"answered {answer.answering_seconds:.1f} s)"
                    )
        return records

    def _key(self, group: Group, row: Row, item: Item, index: int) -> Key:
        prompt = self.style.digest(item, item.questions[index])
        return (
            row.name, group.package.digest, row.reset, item.task, item.column, item.sample, index,
            prompt,
        )  # fmt: skip


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


def apart(rows: Sequence[str], columns: Sequence[str], records: Sequence[Record]) -> Table:
    """How far the other rows are above the first one, document by document.

    All rows answered the same prompts, so the differences scatter less than the rows do. Tasks
    count alike; their samples are taken to be independent.
    """
    table = Table(f"points above {rows[0]!r}", rows[1:], columns)
    table.note = "Same prompts in both rows, so the errors are those of paired differences."
    tasks = list(dict.fromkeys(record["task"] for record in records))
    for column in columns:
        for row in rows[1:]:
            found = []
            for task in tasks:
                own = [record for record in records if record["task"] == task]
                first, other = _samples(own, rows[0], column), _samples(own, row, column)
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
