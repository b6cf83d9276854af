"""Questions about a document: read once, asked as the runtime asks, never asked twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from allmem_runtime import Model, Sampling, load
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.evaluation.answering import Reader
from allmem_runtime.evaluation.asking import Asking, apart, even, in_turn, table_of
from allmem_runtime.evaluation.items import Encoder, Item, Question, Style
from allmem_runtime.evaluation.loading import Models
from allmem_runtime.evaluation.results import Results
from allmem_runtime.evaluation.rows import Row, grouped, parse_rows

CPU = EngineOptions(device="cpu", threads=1)

CHAT = Style(chat=True)


def item(questions: int = 2, sample: int = 0, plain: bool = False) -> Item:
    asked = tuple(
        Question(f"\n\nWhere is key {n}?", f" Key {n} is", ("in the hall",), 5)
        for n in range(questions)
    )
    document = "The key of the boathouse hangs in the hall. " * 6 + str(sample)
    return Item("keys", "2k", sample, document, asked, plain)


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", threads=1)


def test_an_answer_is_what_the_runtime_answers(tiny: Model) -> None:
    asked = Question("\n\nWhere is the key?", "", ("hall",), 8)
    one = Item("keys", "2k", 0, "The key hangs in the hall.", (asked,))
    session = tiny.session()
    for _ in session.ingest(one.document):
        pass
    expected = session.ask("Where is the key?", sampling=Sampling(max_tokens=8))
    (answer,) = Reader(tiny, CHAT).answers(one, [(Row("a", Path()), 0)])
    assert answer.text == expected


def test_every_question_is_asked_of_the_same_reading(tiny: Model) -> None:
    row = Row("a", Path())
    both = [a.text for a in Reader(tiny, CHAT).answers(item(), [(row, 0), (row, 1)])]
    alone = [next(Reader(tiny, CHAT).answers(item(), [(row, n)])).text for n in (0, 1)]
    assert both == alone


def test_a_document_is_read_once_for_all_its_questions(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    original = type(tiny.session()).feed

    def counting(self, ids, logits="none"):  # type: ignore[no-untyped-def]
        fed.append(len(ids))
        return original(self, ids, logits)

    monkeypatch.setattr("allmem_runtime.session.session.Session.feed", counting)
    rows = [Row("a", Path()), Row("b", Path(), reset=True)]
    list(Reader(tiny, CHAT).answers(item(), [(row, n) for row in rows for n in (0, 1)]))
    assert sum(length > 60 for length in fed) == 1


@pytest.mark.parametrize(
    ("style", "plain", "expected"),
    [
        (CHAT, False, "user\nD Q?<|im_end|>\n<|im_start|>assistant\nA:"),
        (Style(True, "user"), False, "user\nD Q? A:<|im_end|>\n<|im_start|>assistant\n"),
        (Style(False), False, "D Q? A:"),
        (CHAT, True, "D Q? A:"),
    ],
    ids=["prefix of the assistant", "prefix of the user", "text", "plain item in a chat"],
)
def test_a_prompt_is_written_in_its_style(
    tiny: Model, style: Style, plain: bool, expected: str
) -> None:
    one = Item("t", "2k", 0, "D", (Question(" Q?", " A:", ("x",), 4),), plain)
    encoder = Encoder(tiny, style)
    ids = encoder.document(one) + encoder.question(one, one.questions[0])
    text = tiny.tokenizer._template.decode(ids, skip_special_tokens=False)
    assert text.removeprefix("<|im_start|>") == expected
    if not plain:
        around = len(ids) - len(tiny.tokenizer.encode_text("D")) - encoder.overhead()
        assert around > 0


def test_control_tokens_in_a_document_stay_text(tiny: Model) -> None:
    one = Item("t", "2k", 0, "<|im_end|>", (Question("?", "", ("x",), 4),))
    ids = Encoder(tiny, Style(False)).document(one)
    assert not set(ids) & set(tiny.tokenizer.control)


def asking(model_dir: Path, results: Results, said: list[str]) -> Asking:
    models = Models(CPU)
    return Asking(models, CHAT, lambda a, q, i: float(len(a)), results, said.append, {})


def test_what_is_known_is_not_asked_again(tiny_model_dir: Path, tmp_path: Path) -> None:
    groups = grouped(parse_rows([f"a={tiny_model_dir}", f"b={tiny_model_dir}:reset"]))
    path, said = tmp_path / "r.jsonl", list[str]()
    items = [item(sample=n) for n in range(3)]
    first = asking(tiny_model_dir, Results(path), said).run(groups, items[:2])
    assert len(said) == len(first) == 2 * 2 * 2
    again = asking(tiny_model_dir, Results(path), said).run(groups, items)
    assert len(said) == 8 + 4  # only the third document
    assert {r["sample"] for r in again} == {0, 1, 2}


def test_stopping_after_any_answer_loses_none(tiny_model_dir: Path, tmp_path: Path) -> None:
    groups = grouped(parse_rows([f"a={tiny_model_dir}"]))
    path, items = tmp_path / "r.jsonl", [item(sample=n) for n in range(2)]
    whole = asking(tiny_model_dir, Results(None), []).run(groups, items)
    for stop in range(1, 4):
        path.unlink(missing_ok=True)
        said: list[str] = []
        work = asking(tiny_model_dir, Results(path), said)

        def stopping(_: str, said: list[str] = said, stop: int = stop) -> None:
            said.append("")
            if len(said) == stop:
                raise KeyboardInterrupt

        work.say = stopping
        with pytest.raises(KeyboardInterrupt):
            work.run(groups, items)
        assert Results(path).found == stop
        resumed = asking(tiny_model_dir, Results(path), []).run(groups, items)
        assert sorted(r["answer"] for r in resumed) == sorted(r["answer"] for r in whole)


def test_kept_answers_are_judged_by_the_references_and_scoring_of_now(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    groups = grouped(parse_rows([f"a={tiny_model_dir}"]))
    path, said = tmp_path / "r.jsonl", list[str]()
    asking(tiny_model_dir, Results(path), said).run(groups, [item()])
    other = item()
    changed = tuple(dataclasses.replace(q, references=("upstairs",)) for q in other.questions)
    work = asking(tiny_model_dir, Results(path), said)
    work.score = lambda answer, question, item: 7.0 + len(question.references[0])
    found = work.run(groups, [dataclasses.replace(other, questions=changed)])
    assert len(said) == 2, "no answer was asked for again"
    assert [r["score"] for r in found] == [15.0, 15.0] and work.rescored == 2
    # The file says so too, and nothing is rescored twice.
    third = asking(tiny_model_dir, Results(path), said)
    third.score = work.score
    assert third.run(groups, [dataclasses.replace(other, questions=changed)]) == found
    assert third.rescored == 0


def test_all_rows_answer_a_prompt_before_the_next_one_comes(
    tiny_model_dir: Path, other_model_dir: Path
) -> None:
    rows = parse_rows([f"a={tiny_model_dir}", f"b={other_model_dir}"])
    groups = grouped(rows, warn=lambda text: None)
    items = [item(questions=1, sample=n) for n in range(2)]
    work = asking(tiny_model_dir, Results(None), [])
    found = work.run(groups, items)
    assert [(r["row"], r["sample"]) for r in found] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    # Without room for both models, loading them in turn would cost more than it is worth.
    work.models = Models(CPU, room=0)
    crowded = work.run(groups, items)
    assert [r["row"] for r in crowded] == ["a", "a", "b", "b"]
    assert sorted(r["answer"] for r in crowded) == sorted(r["answer"] for r in found)


def test_a_run_whose_time_is_over_compares_prompts_that_all_rows_have_answered(
    tiny_model_dir: Path, other_model_dir: Path, tmp_path: Path
) -> None:
    rows = parse_rows([f"a={tiny_model_dir}", f"b={other_model_dir}"])
    groups = grouped(rows, warn=lambda text: None)
    items = [item(questions=1, sample=n) for n in range(2)]
    path, said = tmp_path / "r.jsonl", list[str]()
    work = asking(tiny_model_dir, Results(path), said)
    work.over = lambda: len(said) == 3
    found = work.run(groups, items)
    assert len(found) == 3
    assert [(r["row"], r["sample"]) for r in even(["a", "b"], found)] == [("a", 0), ("b", 0)]
    work = asking(tiny_model_dir, Results(path), said)
    assert len(even(["a", "b"], work.run(groups, items))) == 4 and len(said) == 4


def test_every_column_has_its_first_sample_before_any_has_its_second() -> None:
    made = [
        Item(task, column, sample, "D", ())
        for task in ("t", "u")
        for column in ("2k", "4k")
        for sample in (0, 1)
    ]
    turns = [(i.sample, i.column, i.task) for i in in_turn(made)]
    assert turns == sorted(turns)


def test_questions_about_one_document_are_one_sample() -> None:
    records = [
        {"row": "a", "column": "2k", "sample": sample, "score": score}
        for sample, score in [(0, 0.0), (0, 100.0), (1, 100.0), (1, 100.0)]
    ]
    cell = table_of("t", ["a"], ["2k"], records).cells["a", "2k"]
    assert cell is not None
    assert (cell.value, cell.count, cell.error) == (75.0, 2, 25.0)


def test_differences_are_taken_document_by_document() -> None:
    scores = {
        ("a", "t"): [0.0, 100.0], ("b", "t"): [50.0, 150.0],
        ("a", "u"): [10.0, 10.0], ("b", "u"): [20.0, 40.0],
    }  # fmt: skip
    records = [
        {"row": row, "task": task, "column": "2k", "sample": sample, "score": score}
        for (row, task), each in scores.items()
        for sample, score in enumerate(each)
    ]
    cell = apart("a", ["b", "a"], ["2k"], records).cells["b", "2k"]
    # Task t: 50 and 50, error 0; task u: 10 and 30, mean 20, error 10; their mean.
    assert cell is not None
    assert (cell.value, cell.error) == (35.0, 5.0)
