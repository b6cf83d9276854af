"""Passages in a conversation: what it knows of them, and what questions lean on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from session_tools import SHORT, assert_same, fed_tokens, read
from teapot_book import BOOK, FILLER, QUESTION, reader, room, says, text_of

from allmem_runtime import Model
from allmem_runtime.errors import UsageError
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.prompts import Exchange

__all__ = ["room", "says"]


def test_the_instruction_that_opened_the_conversation_counts_for_passages_too(
    toy: Model, tmp_path: Path
) -> None:
    path = tmp_path / "s.allmem"
    session = read(toy.session(text=path), BOOK, system="Speak like a pirate.")
    session.save(path)
    asked = toy.session(text=True)
    asked.ask("Who are you?", system="Speak like a pirate.", sampling=SHORT)
    read(asked, BOOK)
    for one in (session, session.fork(), toy.open(path), asked):
        with fed_tokens() as tokens:
            assert one.answer(QUESTION, passages=1, sampling=SHORT).text is not None
        assert "Speak like a pirate." in text_of(toy, tokens)
    with pytest.raises(UsageError, match="only open a conversation"):
        _ = session.answer(QUESTION, system="Speak like a parrot.").text


def test_exchanges_before_the_question_are_read_with_its_passages(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    says("Old.")
    session.ask("Who is she?", passages=1)
    says("In the teapot.")
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1).text is not None
    first = session._turns.question("start", "Who is she?", None)
    assert tokens[: len(first)] == first
    assert "Old.<|im_end|>" in text_of(toy, tokens)
    says("Very " * 30)
    session.ask("How old is she?", passages=1)
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1).text is not None
    assert "old is she" not in text_of(toy, tokens)  # there is no room for it


def test_a_question_that_was_left_open_is_not_read_before_the_next(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    says("")
    session.ask("Who is she?", passages=1)
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1).text is not None
    assert "Who is she?" not in text_of(toy, tokens)


def test_conversation_knows_the_exchange_and_not_the_passages(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    before = session.fork()
    says("In the teapot.")
    with fed_tokens() as tokens:
        assert session.ask(QUESTION, passages=1) == "In the teapot."
    assert session.finish_reason == "end"

    plain = read(toy.session(), BOOK)
    says("In the teapot.")
    plain.ask(QUESTION)
    for _ in range(2):
        with session._operation("catching up"):
            list(session._cursor.feed())
        with plain._operation("catching up"):
            list(plain._cursor.feed())
    assert session.position == plain.position
    assert session._cursor.place.turn == plain._cursor.place.turn == "reply"
    assert session._cursor.place.recent == plain._cursor.place.recent
    assert "blue teapot" in text_of(toy, tokens)

    session.undo()
    assert_same(session, before)


def test_cancelled_conversation_keeps_what_was_shown(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    says("abcdef")
    shown = []
    for text in session.stream(QUESTION, passages=1):
        shown.append(text)
        if text == "c":
            session.cancel()
    assert "".join(shown) == "abc"
    assert session.finish_reason == "cancelled"
    assert text_of(toy, session._cursor.place.recent + session._cursor.place.pending).endswith(
        "assistant\nabc"
    )


@pytest.mark.parametrize("passages", [0, 1])
def test_conversation_can_be_cancelled_while_passages_are_looked_for(
    toy: Model, passages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = reader(toy)
    find = session.find_passages

    def found(question: str, most: int) -> list[Passage]:
        passages = find(question, most)
        session.cancel()
        return passages

    monkeypatch.setattr(session, "find_passages", found)
    assert session.ask(QUESTION, passages=passages, sampling=SHORT) == ""
    assert session.finish_reason == "cancelled"


def test_what_is_taken_back_leaves_the_exchange_before(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    for question in ("Who is Mrs. Quell?", "Who is Mr. Lind?"):
        says("I know.")
        session.checkpoint()
        session.ask(question)
    assert [exchange.question for exchange in session._earlier][-1] == "Who is Mr. Lind?"
    before = [Exchange("Who is Mrs. Quell?", "I know.")]
    session.undo()
    assert list(session._earlier) == before
    says("I know.")
    session.ask("And why?")
    session.rollback()
    assert list(session._earlier) == before
    session.reset()
    assert not session._earlier


def test_question_leans_on_the_turn_before(toy: Model, says: Callable[[str], None]) -> None:
    session = read(
        toy.session(text=True),
        FILLER
        + "Mrs. Quell keeps her boat at Ardmouth.\n\n"
        + FILLER
        + "Mr. Lind keeps his boat at Penhallow.\n\n"
        + FILLER,
    )
    says("She is old.")
    session.ask("Who is Mrs. Quell?", passages=1)
    assert "Ardmouth" in session.answer("And where is the boat?", passages=1).passages[0].text
    fork = session.fork()
    assert "Ardmouth" in fork.answer("And where is the boat?", passages=1).passages[0].text
