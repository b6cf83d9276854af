"""Where an answer came from, by its own words."""

from __future__ import annotations

import pytest

from allmem_runtime.session.answered_from import answered_from
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.text.places import TextPlace


def place(text: str) -> Passage:
    where = TextPlace("book.txt", 1, 0, 0)
    return Passage(where, text, 1.0, 1, text, where)


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        ("Extension 4711.", 2),
        ("Call Wren at 4711!", 2),  # all three hold Wren
        ("WREN IS AT 4712", 1),
        ("Wren", 0),  # nothing tells them apart
        ("I do not know.", 0),
        ("", 0),
        ("内線は四七一一です", 3),
    ],
)
def test_words_of_an_answer_point_at_where_it_came_from(answer: str, first: int) -> None:
    passages = [place(text) for text in (
        "Wren keeps bees.", "Wren's old extension was 4712.", "Wren has extension 4711.",
        "レンの内線は四七一一。Wren",
    )]  # fmt: skip
    found = answered_from(passages, "What is Wren's extension?", answer)
    assert found[0] is passages[first]
    assert sorted(map(id, found)) == sorted(map(id, passages))
