"""LongBench: the format, the prompts and the published metrics, by worked examples."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from allmem_runtime import SourceError, UsageError
from allmem_runtime.evaluation.items import Item, Question
from allmem_runtime.evaluation.longbench import (
    longbench_items,
    longbench_score,
    read,
    read_table,
)
from allmem_runtime.evaluation.longbench_metrics import METRICS
from allmem_runtime.evaluation.ruler_package import BenchmarkError


def line(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "context": "A long text.", "input": "Who?", "answers": ["Ann"], "dataset": "hotpotqa",
    }  # fmt: skip
    return {**values, **changes}


def count(text: str) -> int:
    return len(text.split())


def score(dataset: str, answer: str, *references: str, classes: tuple[str, ...] = ()) -> float:
    question = Question("?", "", references, 8, {"classes": list(classes)})
    return longbench_score(answer, question, Item(dataset, dataset, 0, "D", (question,)))


@pytest.mark.parametrize(
    ("dataset", "answer", "references", "expected"),
    [
        ("hotpotqa", "The Eiffel Tower!", ["eiffel tower"], 100.0),
        ("hotpotqa", "It is Ann Lee", ["Ann"], 40.0),  # precision 1/4, recall 1
        ("qasper_e", "no", ["yes", "No."], 100.0),  # the best of the references
        ("triviaqa", "\nAnn\nPassage: more Bob", ["Ann"], 100.0),  # the first line alone
        ("passage_count", "There are 7, or 8", ["7"], 50.0),
        ("passage_retrieval_en", "Paragraph 12", ["Paragraph 12"], 100.0),
        ("passage_retrieval_en", "Paragraph 1", ["Paragraph 12"], 0.0),
        ("lcc", "# note\n    return x\nmore", ["    return x"], 100.0),
        ("lcc", "```", ["return"], 0.0),
    ],
)
def test_metrics_by_worked_examples(
    dataset: str, answer: str, references: list[str], expected: float
) -> None:
    assert score(dataset, answer, *references) == pytest.approx(expected)


def test_classes_that_are_parts_of_the_right_one_do_not_count_against_it() -> None:
    classes = ("Date", "Birth place", "Date of death")
    assert score("trec", "Date of death", "Date of death", classes=classes) == 100.0
    assert score("trec", "Birth place or Date of death", "Date of death", classes=classes) == 50.0
    assert score("trec", "Place", "Date", classes=classes) == 0.0


def test_rouge_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rouge:
        def get_scores(self, found: list[str], right: list[str], avg: bool) -> dict[str, object]:
            return {"rouge-l": {"f": 0.25 if found == ["a"] and right == ["b"] and avg else 0.0}}

    module = ModuleType("rouge")
    module.Rouge = Rouge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rouge", module)
    assert score("gov_report", "a", "b") == 25.0
    monkeypatch.setitem(sys.modules, "rouge", None)
    with pytest.raises(BenchmarkError, match="pip install rouge"):
        score("gov_report", "a", "b")


def test_questions_about_one_context_are_asked_of_one_reading(tmp_path: Path) -> None:
    path = tmp_path / "hotpotqa.jsonl"
    lines = [line(), line(input="Where?"), line(context="Another text that is longer."), line()]
    path.write_text("\n".join(json.dumps(x) for x in lines) + "\n")
    items, left_out = longbench_items(read([path]), 9, {}, {}, count, None)
    assert [len(item.questions) for item in items] == [3, 1] and left_out == 0
    assert "Where?" in items[0].questions[1].text and items[0].document == "A long text."
    short, left_out = longbench_items(read([path]), 9, {}, {}, count, 4)
    assert len(short) == 1 and left_out == 1
    assert len(longbench_items(read([path]), 1, {}, {}, count, None)[0]) == 1


@pytest.mark.parametrize("mark", ["\u2028", "\x85"], ids=["line separator", "next line"])
def test_a_line_ends_only_where_its_object_does(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "x.jsonl"
    record = line(context=f"A text{mark}in two lines.")
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [found["context"] for found in read([path])] == [record["context"]]


def test_prompts_and_lengths_of_the_benchmark_are_used_if_given(tmp_path: Path) -> None:
    prompts = tmp_path / "dataset2prompt.json"
    prompts.write_text(json.dumps({"hotpotqa": "Read: {context} Then: {input}!"}))
    records = [line(dataset="hotpotqa_e"), line(dataset="trec", all_classes=["Ann"])]
    items, _ = longbench_items(records, 9, read_table(prompts, str), {"hotpotqa": 32}, count, None)
    assert items[0].document == "Read: A long text."
    assert items[0].questions[0].text == " Then: Who?!"
    assert items[0].questions[0].max_tokens == 32
    assert (items[0].plain, items[1].plain) == (False, True)


@pytest.mark.parametrize("dataset", sorted(METRICS))
def test_every_dataset_has_a_prompt_with_a_question(dataset: str) -> None:
    records = [line(dataset=dataset, input="", all_classes=["Ann"])]
    items, _ = longbench_items(records, 1, {}, {}, count, None)
    assert items[0].questions[0].text


@pytest.mark.parametrize(
    "change",
    [{"answers": []}, {"answers": [1]}, {"context": None}, {"dataset": "trec"}],
    ids=["no answer", "number as answer", "no context", "no classes"],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(line()) + "\n" + json.dumps(line(**change)))
    with pytest.raises(SourceError, match="line 2"):
        read([path])


def test_a_dataset_without_a_metric_is_refused() -> None:
    with pytest.raises(UsageError, match="dureader"):
        longbench_items([line(dataset="dureader")], 1, {}, {}, count, None)


def test_a_prompt_without_a_place_for_the_context_is_refused() -> None:
    for prompt in ("{input}", "{input} {context}"):
        with pytest.raises(UsageError, match="context"):
            longbench_items([line()], 1, {"hotpotqa": prompt}, {}, count, None)
