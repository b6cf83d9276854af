"""The measuring tools: where facts are hidden, what is right, and results that are kept."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from allmem_runtime import Model
from allmem_runtime.errors import UsageError
from allmem_runtime.session import finding
from benchmarks.passages import given_facts, keeping_speed, ruler, whole
from benchmarks.passages.fact_files import (
    kinds_of_texts,
    read_facts,
    read_texts,
    statements,
)
from benchmarks.passages.hiding import Statement, hide, parts_of
from benchmarks.passages.kept_answers import KeptAnswers
from benchmarks.passages.kept_only import KeptOnly
from benchmarks.passages.scoring import is_right, quantile, ratio, share

PROSE = "".join(f"Paragraph {n} tells of the mill.\nAnd of its wheel.\n\n" for n in range(80))
LOG = "".join(f"10:{n:02d} INFO mill: turned\n" for n in range(60)) * 4
CODE = "".join(f"def f{n}():\n    a = {n}\n\n    return a\n\n\n" for n in range(60))


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("It is 12.", ["12"], True),
        ("It is 120.", ["12"], False),
        ("It is 12.5 or 3,12.", ["12"], False),
        ("The OLD\n mill", ["old mill"], True),
        ("A mills", ["mill"], False),
        ("They divorced.", ["divorce"], True),
        ("-12 and (12)", ["(12)"], True),
        ("答えは青い鍵です", ["青い鍵"], True),
        ("Neither", ["either", "or", "neither"], True),
        ("", ["x"], False),
    ],
)
def test_answers_are_right_at_word_boundaries(
    answer: str, accepted: list[str], right: bool
) -> None:
    assert is_right(answer, accepted) is right


@pytest.mark.parametrize(("kind", "text"), [("prose", PROSE), ("log", LOG), ("code", CODE)])
def test_parts_are_the_text_and_hold_whole_lines(kind: str, text: str) -> None:
    parts = parts_of(kind, text)
    assert "".join(parts) == text
    assert len(parts) > 50
    assert all(part.endswith("\n") for part in parts)
    if kind == "code":
        assert all(part.startswith("def ") for part in parts)


def test_other_facts_can_be_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "others.json"
    path.write_text(json.dumps([{"kind": "log", "text": "11:02 WARN", "question": "?"}, "alone"]))
    assert read_texts(path) == ["11:02 WARN", "alone"]


def test_facts_stand_at_even_depths_of_their_kind_and_nothing_is_torn() -> None:
    told = [Statement("prose", f"Prose fact {n}.", n) for n in range(5)]
    told += [Statement("log", f"11:{n} WARN fact", 5 + n) for n in range(5)]
    told += [Statement("log", f"11:{n} WARN decoy") for n in range(5)]

    hidden = hide({"prose": PROSE, "log": LOG}, told, 4000, 1, len)

    assert 3800 <= len(hidden.text) <= 4100
    border = hidden.text.index("INFO")
    for statement in told:
        assert hidden.text.count(statement.text) == 1
        assert f"\n{statement.text}\n" in f"\n{hidden.text}"
    for number, (first, last) in hidden.spans.items():
        assert hidden.text[first:last] == told[number].text
        assert (first < border) == (number < 5)
    depths = sorted(first / border for first, _ in list(hidden.spans.values())[:5])
    assert [int(5 * depth) for depth in depths] == pytest.approx([0, 1, 2, 3, 4], abs=1)
    kept = hidden.text
    for statement in told[:5]:
        kept = kept.replace(statement.text + "\n\n", "")
    assert kept[: len(kept) // 3] == PROSE[: len(kept) // 3]


def test_a_text_that_is_too_short_or_missing_is_named() -> None:
    with pytest.raises(UsageError, match="'prose' have"):
        hide({"prose": "Short.\n\n"}, [], 4000, 1, len)
    with pytest.raises(UsageError, match="no text of the kind 'log'"):
        hide({"prose": PROSE}, [Statement("log", "a", 0)], 400, 1, len)


def test_answers_are_kept_and_those_of_another_setup_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    kept = KeptAnswers(path, {"model": "a", "passages": 3})
    kept.add("1", {"right": True})
    with path.open("a") as file:
        file.write('{"key": "2", "ri')  # a kill

    again = KeptAnswers(path, {"model": "a", "passages": 3})
    assert (kept.began, again.began) == (True, False)
    assert again["1"]["right"] is True
    assert "2" not in again
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"another setup \(passages\)"):
        KeptAnswers(path, {"model": "a", "passages": 5})
    assert path.read_bytes() == before


def test_shares_and_ratios_have_their_errors() -> None:
    flags = [True] * 3 + [False]
    assert share(flags).value == 0.75
    assert share(flags).error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    same = ratio(flags, flags)
    assert same is not None
    assert (same.value, same.error) == (1.0, 0.0)
    half = ratio([True, False, False, False], [True, True, False, False])
    assert half is not None and half.error is not None
    assert half.value == 0.5 and half.error > 0.3
    assert ratio(flags, [False] * 4) is None
    assert (quantile([3, 1, 2], 0.5), quantile(list(range(1, 11)), 0.9)) == (2, 9)


def test_facts_of_another_form_are_named_by_their_number(tmp_path: Path) -> None:
    good = {"kind": "log", "text": "a", "question": "b", "answers": ["c"]}
    path = tmp_path / "facts.json"
    for bad in ({**good, "answers": []}, {**good, "kind": 3}, {**good, "question": " "}, "x"):
        path.write_text(json.dumps([good, bad]))
        with pytest.raises(UsageError, match="entry 2"):
            read_facts(path)
    path.write_text(json.dumps([good]))
    with pytest.raises(UsageError, match="2 decoys for 1 fact"):
        statements(read_facts(path), ["a", "b"])
    with pytest.raises(UsageError, match="KIND=FILE"):
        kinds_of_texts(["essays.txt"])


def test_given_facts_are_asked_for_once_and_counted(
    toy_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = [
        {"kind": "prose", "text": f"The key of door {n} is {7 * n}1.", "question": f"Door {n}?",
         "answers": [f"{7 * n}1"]}
        for n in range(1, 4)
    ]  # fmt: skip
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "essay.txt").write_text(PROSE)
    options = argparse.Namespace(
        model=toy_dir, out=tmp_path / "out", facts_file=tmp_path / "facts.json", decoys=None,
        texts=[f"prose={tmp_path / 'essay.txt'}"], tokens=2000, seed=1, passages=3, max_tokens=2,
        threads=1, kept=False,
    )  # fmt: skip
    first = given_facts.measure(options)
    assert first["rows"]["all"]["facts"] == 3
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == first
    assert "| all | 3 |" in capsys.readouterr().out

    options.kept = True
    with pytest.raises(UsageError, match=r"another setup \(rows\)"):
        given_facts.measure(options)
    options.out = tmp_path / "kept"
    monkeypatch.setattr(given_facts, "read_once", lambda *_: pytest.fail("read"))
    kept = given_facts.measure(options)
    assert 0 <= first["tokens"] - kept["tokens"] < 10, "the chat template alone"
    assert kept["rows"]["all"]["passages"] == first["rows"]["all"]["passages"]
    assert "state" not in kept["rows"]["all"] and "| all | 3 | - |" in capsys.readouterr().out

    monkeypatch.setattr(given_facts, "_asked", lambda *_: pytest.fail("asked again"))
    assert given_facts.measure(options) == kept


def test_questions_about_the_whole_are_answered_both_ways(toy: Model, tmp_path: Path) -> None:
    session = toy.session(text=tmp_path / "s.allmem")
    for _ in session.ingest(PROSE, name="mill.txt"):
        pass
    session.save(tmp_path / "s.allmem")
    (tmp_path / "whole.json").write_text(json.dumps(["What is it about?", "Paragraph 7?"]))
    options = argparse.Namespace(
        model=toy.package.folder, session=tmp_path / "s.allmem", questions=tmp_path / "whole.json",
        out=tmp_path / "out", passages=3, max_tokens=4, threads=1,
    )  # fmt: skip

    answers = whole.measure(options)["answers"]

    lines = list(whole.side_by_side(answers))
    assert [answer["key"] for answer in answers] == ["What is it about?", "Paragraph 7?"]
    assert all(answer["key"] in "\n".join(lines) for answer in answers)
    assert lines[-1].endswith("of 2 questions.")


def test_keeping_is_timed_in_turns(toy_dir: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(PROSE)
    options = argparse.Namespace(
        model=toy_dir, text=text, tokens=200, rounds=3, threads=1, json=tmp_path / "out.json"
    )
    found = keeping_speed.measure(options)
    assert len(found["seconds_kept"]) == len(found["seconds_unkept"]) == 3
    assert found["lowest"] <= found["median"] <= found["highest"]
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert keeping_speed.summary([2.0, 1.0, 4.0], [1.0, 1.0, 1.0])["median"] == 0.5


def test_a_text_that_is_only_kept_gives_the_passages_of_one_that_is_read(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "PASSAGES_SHARE", 20)
    text = "".join(f"On day {day} somebody called{day} came by.\n\n" for day in range(200))
    session = toy.session(text=True)
    for _ in session.ingest(text, name="document.txt"):
        pass
    question = "When did called77 come by?"
    found = KeptOnly(toy, text).find(question, 3)
    assert found and "called77" in found[0].text
    assert [p.text for p in found] == [p.text for p in session.find_passages(question)]


def test_scores_of_ruler_are_told_without_passages_too() -> None:
    records = [{"task": "qa_1", "row": "full", "score": score} for score in (0.0, 100.0)]

    tasks = ruler.summary(records, ["qa_1"], ["full"])

    assert ruler.table(tasks, ["full"])[-1] == "| qa_1 | 50.0 ± 50.0 | – |"
