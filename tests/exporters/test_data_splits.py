"""Nothing that is held out, or that an evaluation asks, is ever trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sources import hotpotqa, squad

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.documents import separate
from allmem_exporters.finetune.data.questions import Collection, read_questions
from allmem_exporters.finetune.data.splits import split_of


def used(collection: Collection, split: str) -> set[str]:
    """Every paragraph that sequences of a split can show."""
    asked = {p for q in collection.questions[split] for p in (*q.evidence, *q.distractors)}
    return asked | set(collection.paragraphs[split])


@pytest.mark.parametrize("kind", ["hotpotqa", "squad"])
def test_held_out_and_reserved_paragraphs_never_appear_in_training(
    tmp_path: Path, kind: str
) -> None:
    make = hotpotqa if kind == "hotpotqa" else squad
    collection = read_questions(make(tmp_path / "q.json", 80), kind, heldout=0.3, reserved=7)
    train, heldout = used(collection, "train"), used(collection, "heldout")
    assert train and heldout and collection.reserved
    assert not train & heldout
    assert not (train | heldout) & collection.reserved


def test_paragraphs_of_the_first_questions_are_reserved_even_where_others_share_them(
    tmp_path: Path,
) -> None:
    path = hotpotqa(tmp_path / "q.json", 20)
    collection = read_questions(path, "hotpotqa", heldout=0.0, reserved=5)
    texts = {q.text for q in collection.questions["train"]}
    # The sixth question's own evidence is a distractor of the fifth, which is reserved.
    assert texts == {f"What happened in {1000 + n}?" for n in range(6, 20)}


def test_unanswerable_questions_are_not_counted_among_the_reserved(tmp_path: Path) -> None:
    collection = read_questions(squad(tmp_path / "q.json", 10), "squad", 0.0, reserved=4)
    # Three answerable questions an article: the fourth lies in the second article.
    assert len(collection.reserved) == 6
    assert len(collection.questions["train"]) == 24


def test_a_paragraph_of_a_held_out_text_is_dropped_from_training_texts() -> None:
    shared = "This paragraph stands in every one of the texts, word for word, and is quite long."
    own = "This one stands in text {} alone, where it is the longest of all its paragraphs, too."
    names = [f"{n}" for n in range(40)]
    documents = separate(
        ((n, f"{own.format(n)}\n\n{shared}\n\n{own.format('later ' + n)}") for n in names), 0.3
    )
    assert {d.split for d in documents} == {"train", "heldout"}
    holders = [d for d in documents if shared in d.paragraphs]
    assert len(holders) == 1 and holders[0].split == "heldout"


def test_a_document_stays_on_its_side_when_others_come_and_go() -> None:
    sides = {n: split_of(f"document {n}", 0.25) for n in range(400)}
    assert sides == {n: split_of(f"document {n}", 0.25) for n in reversed(range(400))}
    # 400 draws of 0.25: 60 to 140 is within five standard deviations.
    assert 60 < sum(side == "heldout" for side in sides.values()) < 140
    assert all(split_of(f"document {n}", 0.5) == "heldout" for n in sides if sides[n] == "heldout")


def test_a_file_of_another_layout_is_named(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text('{"data": [{}]}')
    with pytest.raises(DataError, match=r"q\.json is not laid out as squad"):
        read_questions(path, "squad", 0.1)
