"""Passages that do not make a question likelier are about something else, and are not told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from session_tools import SHORT, assert_same, fed_tokens, read
from teapot_book import BOOK, QUESTION, TWO, says, text_of

from allmem_runtime import Model, Session
from allmem_runtime.passages import search as searching
from allmem_runtime.session import finding, rereading
from allmem_runtime.session.feeding import Feeding
from allmem_runtime.session.kept_text import Passage

__all__ = ["says"]

Likes = Callable[[float], None]


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy model takes a token for each letter, so its window holds no passage.

    Nothing fits by its words alone.
    """
    monkeypatch.setattr(finding, "PASSAGES_SHARE", 20)
    monkeypatch.setattr(rereading, "HELD", 2.0)
    monkeypatch.setattr(rereading, "UNLIKELIER", 0.0)


@pytest.fixture
def likes(toy: Model, monkeypatch: pytest.MonkeyPatch) -> Likes:
    """Make the logarithm of a question's probability larger behind the teapot."""

    def set_gain(much: float) -> None:
        def likelihood(self: Session, ids: Sequence[int], told: range) -> float:
            self.feed(ids[:-1])
            self._cursor.queue(ids[-1:])
            return -50 + much * ("teapot" in text_of(toy, list(ids)))

        monkeypatch.setattr(Feeding, "likelihood", likelihood)

    return set_gain


@pytest.mark.parametrize("question", [QUESTION, "Where did Mrs. Quell hide all the keys?"])
def test_where_no_passage_makes_the_question_likelier_the_state_alone_answers(
    toy: Model, likes: Likes, question: str
) -> None:
    session = read(toy.session(text=True), TWO)
    before, expected = session.fork(), session.fork()
    likes(-0.1)
    answer = session.answer(question, sampling=SHORT)
    assert len(answer.passages) > 1  # what the search found
    text = answer.text
    assert answer.passages == ()
    assert text == expected.ask(question, sampling=SHORT)
    assert (answer.position, answer.finish_reason) == (expected.position, expected.finish_reason)
    assert_same(session, before)


def test_only_one_that_does_is_answered_from_and_told(toy: Model, likes: Likes) -> None:
    session = read(toy.session(text=True), TWO)
    likes(0.1)
    with fed_tokens() as tokens:
        answer = session.answer(QUESTION, sampling=SHORT)
        found = answer.passages
        assert answer.text is not None
    assert len(found) > 1
    assert ["teapot" in passage.text for passage in answer.passages] == [True]
    assert text_of(toy, tokens).count(QUESTION) == len(found) + 1  # once without a passage


def is_told(toy: Model, likes: Likes, gain: float) -> bool:
    """Whether a passage is told that makes the question likelier by so many roots of tokens."""
    session = read(toy.session(text=True), BOOK)
    likes(gain * len(toy.tokenizer.encode_text(QUESTION)) ** 0.5)
    answer = session.answer(QUESTION, passages=1, sampling=SHORT)
    assert answer.text is not None
    return bool(answer.passages)


def test_one_that_makes_it_hardly_unlikelier_fits(
    toy: Model, likes: Likes, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = read(toy.session(text=True), BOOK)
    root = len(toy.tokenizer.encode_text(QUESTION)) ** 0.5
    monkeypatch.setattr(rereading, "UNLIKELIER", 0.75)
    for less, told in ((0.7, True), (0.8, False)):
        likes(-less * root)
        answer = session.answer(QUESTION, passages=1, sampling=SHORT)
        assert answer.text is not None
        assert bool(answer.passages) == told


@pytest.mark.parametrize(
    ("likeness", "gain", "told"),
    [(0.7, -0.9, True), (0.7, -1.1, False), (0.3, 0.9, False), (0.3, 1.1, True)],
)
def test_the_more_it_is_like_the_question_the_unlikelier_it_may_make_it(
    toy: Model,
    likes: Likes,
    monkeypatch: pytest.MonkeyPatch,
    likeness: float,
    gain: float,
    told: bool,
) -> None:
    def search(*given: Any) -> list[Passage]:
        return [replace(one, likeness=likeness) for one in searching.search(*given)]

    monkeypatch.setattr("allmem_runtime.passages.keeping.search", search)
    assert is_told(toy, likes, gain) == told


@pytest.mark.parametrize("likeness", [0.5, None])
@pytest.mark.parametrize(
    ("text", "gain", "told"),
    [
        ('KEY = dict(hidden_in="teapot")', -1.4, True),
        ('KEY = dict(hidden_in="teapot")', -1.6, False),
        ("The key is in the teapot.", -0.1, False),
        ("कुंजी teapot में है", -0.1, False),
    ],
)
def test_one_of_signs_may_make_a_question_in_words_unlikelier(
    toy: Model,
    likes: Likes,
    monkeypatch: pytest.MonkeyPatch,
    likeness: float | None,
    text: str,
    gain: float,
    told: bool,
) -> None:
    def search(*given: Any) -> list[Passage]:
        return [replace(one, likeness=likeness, text=text) for one in searching.search(*given)]

    monkeypatch.setattr("allmem_runtime.passages.keeping.search", search)
    assert is_told(toy, likes, gain) == told


@pytest.mark.parametrize(("less", "first"), [(1.4, True), (1.6, False)])
def test_what_signs_take_off_is_made_up_for_beside_prose(
    toy: Model, monkeypatch: pytest.MonkeyPatch, less: float, first: bool
) -> None:
    code, prose = 'KEY = dict(hidden_in="teapot")', "The key is in the drawer."
    root = len(toy.tokenizer.encode_text(QUESTION)) ** 0.5

    def likelihood(self: Session, ids: Sequence[int], told: range) -> float:
        read = text_of(toy, list(ids))
        self.feed(ids[:-1])
        self._cursor.queue(ids[-1:])
        return -less * root if code in read else 0.0 if prose in read else -100.0

    def search(*given: Any) -> list[Passage]:
        found = searching.search(*given)[:2]
        texts = zip(found, (prose, code), strict=True)
        return [replace(one, text=text, score=1.0, likeness=None) for one, text in texts]

    monkeypatch.setattr(Feeding, "likelihood", likelihood)
    monkeypatch.setattr("allmem_runtime.passages.keeping.search", search)
    answer = read(toy.session(text=True), TWO).answer(QUESTION, sampling=SHORT)
    assert answer.text is not None
    assert [passage.text for passage in answer.passages] == [code, prose][:: 1 if first else -1]


def test_one_that_has_most_of_the_question_s_words_fits_all_the_same(
    toy: Model, likes: Likes, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = read(toy.session(text=True), BOOK)
    likes(-0.1)
    (found,) = session.find_passages(QUESTION, 1)
    assert 0.5 < found.share <= 1
    for held, told in ((0.99, (found,)), (1.01, ())):
        monkeypatch.setattr(rereading, "HELD", held * found.share)
        answer = session.answer(QUESTION, passages=1, sampling=SHORT)
        assert answer.text is not None
        assert answer.passages == told


def test_a_session_that_is_asked_answers_and_remembers_as_without_passages(
    toy: Model, likes: Likes, says: Callable[[str], None]
) -> None:
    session, plain = read(toy.session(text=True), BOOK), read(toy.session(), BOOK)
    likes(-0.1)
    for one, passages in ((session, 3), (plain, 0)):
        says("I do not know.")
        assert one.ask(QUESTION, passages=passages) == "I do not know."
        assert (one.passages, one.finish_reason) == ((), "end")
    session._cursor.place.text = plain._cursor.place.text
    assert_same(session, plain)
    assert session._earlier == plain._earlier


def test_passages_that_the_caller_has_chosen_are_not_judged(toy: Model, likes: Likes) -> None:
    session = read(toy.session(text=True), BOOK)
    found = session.find_passages(QUESTION, 1)
    likes(-0.1)
    answer = session.answer(QUESTION, passages=found, sampling=SHORT)
    assert answer.text is not None
    assert list(answer.passages) == found


def test_a_question_behind_others_is_not_judged_since_it_may_lean_on_them(
    toy: Model, likes: Likes, says: Callable[[str], None]
) -> None:
    session = read(toy.session(text=True), BOOK)
    says("She is old.")
    session.ask("Who is Mrs. Quell?")
    likes(-0.1)
    answer = session.answer("And where is the teapot?", passages=1, sampling=SHORT)
    assert answer.text is not None
    assert answer.passages


def test_cancelling_while_passages_are_judged_ends_the_answer(toy: Model, likes: Likes) -> None:
    session = read(toy.session(text=True), BOOK)
    likes(-0.1)
    answer = session.answer(QUESTION, sampling=SHORT, progress=lambda step: answer.cancel())
    assert (answer.text, answer.finish_reason) == ("", "cancelled")
