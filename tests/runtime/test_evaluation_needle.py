"""Needles: where they lie, how long the text is, and what counts as found."""

from __future__ import annotations

from pathlib import Path

import pytest

from allmem_runtime import SourceError, UsageError
from allmem_runtime.evaluation.needle import MAX_ANSWER, needle_items, needle_score, sentences


def count(text: str) -> int:
    """A tokenizer of words."""
    return len(text.split())


def test_prompts_fill_their_length_and_never_pass_it() -> None:
    for item in needle_items([300, 1000], 5, 3, 0, count, overhead=20):
        length = int(item.column)
        longest = max(count(item.document + q.text + q.prefix) for q in item.questions)
        total = longest + 20 + MAX_ANSWER
        # Within the longest sentence there is, and the twentieth that is cut off at once.
        assert length - 60 <= total <= length


def test_needles_lie_at_even_depths_from_the_first_sentence_to_the_last() -> None:
    (item,) = needle_items([2000], 5, 1, 0, count, overhead=0)
    places = [item.document.index(q.references[0]) / len(item.document) for q in item.questions]
    assert [q.detail["depth"] for q in item.questions] == [0, 25, 50, 75, 100]
    assert places == pytest.approx([0.01, 0.25, 0.5, 0.75, 1.0], abs=0.03)
    assert item.document.endswith(f"is {item.questions[-1].references[0]}.")


def test_every_needle_has_its_own_key_and_answer() -> None:
    (item,) = needle_items([2000], 10, 1, 0, count, overhead=0)
    assert len({q.references[0] for q in item.questions}) == 10
    assert len({q.text for q in item.questions}) == 10


def test_equal_seeds_make_equal_documents_and_others_do_not() -> None:
    one, two, other = (needle_items([400], 3, 2, seed, count, 0) for seed in (1, 1, 2))
    assert one == two
    assert one[0].document != other[0].document and one[0].document != one[1].document


def test_more_samples_leave_the_first_ones_as_they_were() -> None:
    assert needle_items([400], 3, 2, 1, count, 0) == needle_items([400], 3, 4, 1, count, 0)[:2]


def test_a_text_of_the_user_holds_the_needles(tmp_path: Path) -> None:
    path = tmp_path / "hay.txt"
    path.write_text("It rained all day. Nobody came. The lamp was lit.")
    hay = sentences(path)
    assert hay == ["It rained all day.", "Nobody came.", "The lamp was lit."]
    (item,) = needle_items([400], 2, 1, 0, count, 0, hay)
    assert "Nobody came. The lamp was lit. It rained all day." in item.document


def test_a_number_is_found_wherever_it_stands_in_the_answer() -> None:
    (item,) = needle_items([400], 2, 1, 0, count, 0)
    question = item.questions[0]
    assert needle_score(f"It is {question.references[0]}, I think", question, item) == 100.0
    assert needle_score(item.questions[1].references[0], question, item) == 0.0


def test_a_text_too_short_for_its_needles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no room"):
        needle_items([120], 8, 1, 0, count, 0)
    with pytest.raises(UsageError, match="depths"):
        needle_items([9000], 99, 1, 0, count, 0)
    (tmp_path / "empty").write_text(" . ")
    with pytest.raises(SourceError, match="no sentence"):
        sentences(tmp_path / "empty")
