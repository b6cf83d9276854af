"""LongBench: local files in its format, each line a context, a question and right answers.

Prompts are the benchmark's own if its table of prompts is given, else plain ones of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from allmem_runtime.errors import SourceError, UsageError
from allmem_runtime.evaluation.items import Item, Question
from allmem_runtime.evaluation.longbench_metrics import (
    FIRST_LINE,
    METRICS,
    NEEDS_CLASSES,
    f1,
    rouge_l,
)
from allmem_runtime.strict_json import parse_json

# LongBench leaves the chat template out where the prompt itself holds worked examples or code.
_PLAIN = frozenset({"trec", "triviaqa", "samsum", "lcc", "repobench-p"})
_CODE = frozenset({"lcc", "repobench-p"})

# The lengths LongBench allows are a table of its own; these serve where none is given.
_ANSWER_TOKENS = 64
_SUMMARY_TOKENS = 512

Record = dict[str, Any]


def read(paths: Sequence[Path]) -> list[Record]:
    """The lines of the files, checked.

    Raises:
        SourceError: a file cannot be read, or a line is not in LongBench's format.
    """
    records = []
    for path in paths:
        try:
            # Not splitlines: texts hold other marks at which that cuts.
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: cannot be read ({error}).", "Check it.") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                records.append(_checked(f"{path}: line {number}", line))
    return records


def longbench_items(
    records: Sequence[Record],
    samples: int,
    prompts: dict[str, str],
    answer_tokens: dict[str, int],
    count: Callable[[str], int],
    longest: int | None,
) -> tuple[list[Item], int]:
    """Items, questions about the same context together, and how many were left out.

    Args:
        records: what ``read`` gave.
        samples: contexts of each dataset, in the order of the file.
        prompts: by dataset, with ``{context}`` and ``{input}``.
        answer_tokens: longest answer by dataset.
        count: tokens of a text.
        longest: contexts with more tokens are left out; None takes all.

    Raises:
        UsageError: a dataset has no metric here, or a prompt has no place for the context.
    """
    together: dict[str, dict[str, list[Question]]] = {}
    left_out = 0
    for record in records:
        name = record["dataset"]
        task = task_of(name)
        before, after = _parts(name, prompts)
        groups = together.setdefault(name, {})
        document = before + record["context"]
        if document not in groups and len(groups) >= samples:
            continue
        if document not in groups and longest is not None and count(document) > longest:
            left_out += 1
            continue
        default = _SUMMARY_TOKENS if METRICS[task] is rouge_l else _ANSWER_TOKENS
        question = Question(
            text=after.replace("{input}", record["input"]),
            prefix="",
            references=tuple(record["answers"]),
            max_tokens=answer_tokens.get(name, answer_tokens.get(task, default)),
            detail={"classes": record.get("all_classes") or []},
        )
        groups.setdefault(document, []).append(question)
    items = [
        Item(name, name, number, document, tuple(questions), plain=task_of(name) in _PLAIN)
        for name, groups in together.items()
        for number, (document, questions) in enumerate(groups.items())
    ]
    return items, left_out


def longbench_score(answer: str, question: Question, item: Item) -> float:
    """The best of the references, by the dataset's own metric."""
    task = task_of(item.task)
    metric = METRICS[task]
    if task in FIRST_LINE:
        answer = answer.lstrip("\n").split("\n")[0]
    classes = question.detail["classes"]
    return 100 * max(metric(answer, reference, classes) for reference in question.references)


def task_of(dataset: str) -> str:
    """The task a dataset belongs to.

    Raises:
        UsageError: it is none with a metric here.
    """
    task = dataset.removesuffix("_e")
    if task not in METRICS:
        raise UsageError(
            f"The dataset {dataset!r} has no metric here.",
            f"Those with one: {', '.join(sorted(METRICS))}.",
        )
    return task


def read_table(path: Path, kind: type) -> dict[str, Any]:
    """A JSON object by dataset, such as LongBench's ``dataset2prompt.json``.

    Raises:
        SourceError: it is none.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        if not all(isinstance(value, kind) for value in values.values()):
            raise ValueError(f"its values must be {kind.__name__}")
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(
            f"{path}: not a table by dataset ({error}).", "Give the benchmark's own file."
        ) from None
    found: dict[str, Any] = values
    return found


def _parts(name: str, prompts: dict[str, str]) -> tuple[str, str]:
    """What goes before and after the context."""
    task = task_of(name)
    prompt = prompts.get(name, prompts.get(task))
    if prompt is None:
        prompt = _default(task)
    before, found, after = prompt.partition("{context}")
    if not found:
        raise UsageError(
            f"The prompt of {name!r} has no {{context}}.", "Give the benchmark's own prompts."
        )
    if not after.strip():
        raise UsageError(
            f"The prompt of {name!r} has nothing after {{context}}.", "A question must follow."
        )
    return before, after


def _default(task: str) -> str:
    if task in _CODE:
        return "{context}\n{input}Next line of code:\n"
    if METRICS[task] is rouge_l:
        return "{context}\n\n{input}\n\nWrite a summary of the text above.\n\nSummary:"
    if METRICS[task] is f1:
        return (
            "{context}\n\nAnswer the question about the text above in a few words, and say "
            "nothing else.\n\nQuestion: {input}\nAnswer:"
        )
    return "{context}\n\n{input}"


def _checked(where: str, line: str) -> Record:
    try:
        record = parse_json(line)
        texts = [record["context"], record["input"], record["dataset"], *record["answers"]]
        if not record["answers"] or not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise SourceError(
            f"{where} is not in LongBench's format.",
            "Each line is a JSON object with context, input, answers (texts) and dataset.",
        ) from None
    if record["dataset"].removesuffix("_e") in NEEDS_CLASSES and not record.get("all_classes"):
        raise SourceError(f"{where} has no all_classes.", "Its metric needs them.")
    checked: Record = record
    return checked
