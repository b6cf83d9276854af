"""What a question wants by its own words."""

from __future__ import annotations

import pytest

from allmem_runtime.session.wanted import BRIEFLY, FROM_THE_TEXT, instruction, wants_several


@pytest.mark.parametrize(
    ("question", "several"),
    [
        ("What are ALL the codes?", True), ("Who paid for Ann, Bea and Carl?", True),
        ("Welche Farben mögen Ann, Bea, Carl oder Dora?", True), ("列出钥匙", True),
        ("Where, in the end, was it?", False), ("Who fell and rose?", False),
        ("How tall is the listener?", False),
    ],
)  # fmt: skip
def test_several_things_are_asked_for_by_words_and_enumerations(
    question: str, several: bool
) -> None:
    assert wants_several(question) is several


def test_a_list_of_any_length_is_looked_through_once() -> None:
    assert not wants_several("a, b " * 50_000)  # takes minutes where each comma looks to the end
    assert wants_several("a, b " * 50_000 + "and c")


@pytest.mark.parametrize("question", [
    "Explain how the lock was opened.", "What are the steps to mend it?", "Beschreibe das Haus.",
    "LIST all names.", "请详细解释",
])  # fmt: skip
def test_a_question_that_asks_for_more_is_not_cut_short(question: str) -> None:
    assert instruction(question) == FROM_THE_TEXT


@pytest.mark.parametrize("question", [
    "Where is the key?", "Who listened to the stepfather's waltz?", "Wo ist er?", "鑰匙在哪裡?",
])  # fmt: skip
def test_a_plain_question_is_answered_in_a_few_words(question: str) -> None:
    assert instruction(question) == BRIEFLY
