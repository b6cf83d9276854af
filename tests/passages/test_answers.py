"""An answer: streamed to any number of readers, cancelled, and by the state alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from session_tools import SHORT, fed_tokens, read
from teapot_book import BOOK, QUESTION, reader, room, says

from allmem_runtime import Answer, Model
from allmem_runtime.errors import SessionStateError

__all__ = ["room", "says"]


def test_answer_is_streamed_and_then_whole(toy: Model, says: Callable[[str], None]) -> None:
    session = reader(toy)
    says("abcdef")
    answer = session.answer(QUESTION)
    first = next(iter(answer))
    assert (first, answer.finish_reason) == ("a", "")
    assert answer.text == "abcdef"
    assert list(answer) == list("abcdef")
    assert answer.finish_reason == "end"


def test_each_reader_of_an_answer_gets_all_of_it(toy: Model, says: Callable[[str], None]) -> None:
    session = reader(toy)
    says("In the blue teapot.")
    answer = session.answer(QUESTION)
    first, second = iter(answer), iter(answer)
    turns = [(next(first), next(second)) for _ in range(3)]
    assert all(one == other for one, other in turns)
    begun = "".join(one for one, _ in turns)
    assert begun + "".join(second) == begun + "".join(first) == "In the blue teapot."
    assert answer.finish_reason == "end"


def test_two_threads_may_take_one_answer(toy: Model, says: Callable[[str], None]) -> None:
    session = reader(toy)
    says("In the blue teapot.")
    answer = session.answer(QUESTION)
    with ThreadPoolExecutor(2) as threads:
        texts = list(threads.map(lambda _: answer.text, range(2)))
    assert texts == ["In the blue teapot."] * 2


def test_no_passages_ask_the_state_alone(toy: Model) -> None:
    session = reader(toy)
    for question, passages in ((QUESTION, 0), ("What is this about?", 3)):
        with fed_tokens() as tokens:
            answer = session.answer(question, passages=passages, sampling=SHORT)
            text = answer.text
        assert answer.passages == ()
        expected = session.fork()
        with fed_tokens() as alone:
            assert expected.ask(question, sampling=SHORT) == text
        assert tokens == alone


def test_spaces_that_wait_are_read_once_before_a_question_to_the_state_alone(toy: Model) -> None:
    session = reader(toy)
    session._cursor.place.lead = "   "
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=0, sampling=SHORT).text is not None
    expected = session.fork()
    with fed_tokens() as alone:
        assert expected.ask(QUESTION, sampling=SHORT) is not None
    assert tokens == alone


def test_a_failed_session_answers_neither_alone_nor_from_passages(toy: Model) -> None:
    session = reader(toy)
    session._cursor.failure = "it was dropped."
    for passages in (0, 1):
        with pytest.raises(SessionStateError, match="it was dropped"):
            session.answer(QUESTION, passages=passages)


def test_session_without_kept_text_answers_alone(toy: Model) -> None:
    session = read(toy.session(), BOOK)
    assert session.answer(QUESTION, sampling=SHORT).passages == ()
    assert session.text_failure == ""


def test_answer_can_be_cancelled_while_it_reads_and_while_it_writes(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    answer = session.answer(QUESTION)
    answer.cancel()
    with fed_tokens() as tokens:
        assert answer.text == ""
    assert answer.finish_reason == "cancelled"
    assert len(tokens) <= session.piece

    says("abcdef")
    answer = session.answer(QUESTION)
    for text in answer:
        if text == "c":
            answer.cancel()
    assert (answer.text, answer.finish_reason) == ("abc", "cancelled")


def test_answer_and_passage_are_public(toy: Model) -> None:
    answer = reader(toy).answer(QUESTION)
    assert isinstance(answer, Answer)


@pytest.mark.parametrize("question", ["", " ", "\n", "\0", "?", "\u202e", "\x1b[2J"])
def test_a_question_without_a_word_is_answered_by_the_state_alone(
    toy: Model, question: str
) -> None:
    session = reader(toy)
    answer = session.answer(question, sampling=SHORT)
    assert answer.passages == ()
    assert isinstance(answer.text, str)
    assert session.text_failure == ""
