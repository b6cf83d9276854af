"""Which passages are read again before an answer, and which one it is written from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from session_tools import SHORT, assert_same, fed_tokens, read
from teapot_book import BOOK, FILLER, QUESTION, TWO, reader, room, says, text_of

from allmem_runtime import Model, Session
from allmem_runtime.session.feeding import Feeding
from allmem_runtime.session.wanted import BRIEFLY, FROM_THE_TEXT

__all__ = ["room", "says"]


def likes(monkeypatch: pytest.MonkeyPatch, model: Model, words: str, much: float = 1000) -> None:
    """Make each token of a question likelier where some words stand before it."""

    def likelihood(self: Session, ids: Sequence[int], told: range) -> float:
        assert model.tokenizer.decode(ids[told.start : told.stop]) == QUESTION
        self.feed(ids[:-1])
        self._cursor.queue(ids[-1:])
        return much * len(told) * (words in text_of(model, list(ids)))

    monkeypatch.setattr(Feeding, "likelihood", likelihood)


def test_the_passage_is_all_that_was_read_before_the_question(
    toy: Model, says: Callable[[str], None]
) -> None:
    session = reader(toy)
    before = session.fork()
    says("In the teapot.")
    with fed_tokens() as tokens:
        answer = session.answer(QUESTION, passages=1)
        text = answer.text

    assert text == "In the teapot."
    assert answer.finish_reason == "end"
    (passage,) = answer.passages
    assert passage.sentence == "Mrs. Quell hid the spare key inside the blue teapot."
    assert str(passage.sentence_place) == "book.txt:119"
    assert BOOK[passage.place.character :].startswith(passage.text)
    assert passage.tokens == len(toy.tokenizer.encode_text(passage.text))
    asked = f"{passage.text.strip()}\n\n{QUESTION}{BRIEFLY}"
    said = toy.tokenizer.encode_text("In the teapot.")
    assert tokens[: -len(said)] == session._turns.question("start", asked, None)
    assert text_of(toy, tokens).endswith("<|im_start|>assistant\nIn the teapot.")
    assert answer.position == session.position + len(tokens)
    assert_same(session, before)


def test_each_passage_is_read_by_itself_and_the_likeliest_is_answered_from(
    toy: Model, says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = read(toy.session(text=True), TWO)
    for told in ("never told", "blue teapot"):
        likes(monkeypatch, toy, told)
        says("Yes.")
        with fed_tokens() as tokens:
            written = session.answer(QUESTION)
            before = written.passages
            assert written.text == "Yes."
        assert len(before) > 1
        assert text_of(toy, tokens).count(QUESTION) == len(before)
        assert text_of(toy, tokens).count("<|im_start|>user") == 1  # what all share is read once
        assert told in written.passages[0].text
        assert sorted(map(id, written.passages)) == sorted(map(id, before))
        says("Yes.")
        asked = session.fork()
        assert asked.ask(QUESTION, passages=3) == "Yes."
        assert told in asked.passages[0].text


def test_a_question_for_several_things_is_answered_from_all_passages_together(
    toy: Model,
) -> None:
    several = "Where did Mrs. Quell hide all the keys?"
    session = read(toy.session(text=True), TWO)
    found = session.find_passages(several, 1)
    assert len(found) == 2
    with fed_tokens() as tokens:
        assert session.answer(several, passages=1, sampling=SHORT).text is not None
    said = text_of(toy, tokens)
    assert said.count(several + FROM_THE_TEXT) == 1
    assert all(passage.text.strip() in said for passage in found)
    assert len(session.find_passages(QUESTION, 1)) == 1


def test_passages_may_be_chosen_by_the_caller(toy: Model) -> None:
    session = read(toy.session(text=True), TWO)
    found = session.find_passages(QUESTION)
    assert len(found) > 1
    with fed_tokens() as tokens:
        answer = session.answer(QUESTION, passages=found[1:2], sampling=SHORT)
        assert answer.text is not None
    assert list(answer.passages) == found[1:2]
    assert found[1].text.strip() in text_of(toy, tokens)
    assert found[0].text.strip() not in text_of(toy, tokens)
    assert session.answer(QUESTION, passages=[], sampling=SHORT).passages == ()


def test_what_the_search_says_counts_where_the_question_is_about_as_likely(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = read(toy.session(text=True), TWO)
    for told in ("never told", "blue teapot"):
        likes(monkeypatch, toy, told, much=0.01)
        answer = session.answer(QUESTION, sampling=SHORT)
        found = answer.passages
        assert found[0].score > 1.1 * found[1].score
        assert answer.text is not None
        assert answer.passages == found


def test_blank_ends_of_a_passage_are_left_out(toy: Model) -> None:
    session = read(toy.session(text=True), f"{FILLER}\n        Mrs. Quell hid the key.\n\n   \n")
    with fed_tokens() as tokens:
        assert session.answer(QUESTION, passages=1, sampling=SHORT).text is not None
    assert f"Mrs. Quell hid the key.\n\n{QUESTION}" in text_of(toy, tokens)


def test_likelihood_is_that_of_the_question_and_its_last_token_waits(toy: Model) -> None:
    ids = toy.tokenizer.encode_text("Mrs. Quell hid it. Where did Mrs. Quell hide it?" * 9)
    told = range(len(ids) - 30, len(ids) - 10)
    session = toy.session()
    found = session.likelihood(ids, told)
    assert session._cursor.place.pending == ids[-1:]
    rows = toy.session().feed(ids, "all").astype(np.float64)
    chances = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    expected = sum(np.log(chances[at - 1, ids[at]]) for at in told)
    assert found == pytest.approx(expected, rel=1e-5)
    assert toy.session().likelihood(ids[:1], range(1)) == 0


def test_passages_that_hold_different_names_are_read_together(toy: Model) -> None:
    session = read(
        toy.session(text=True),
        f"{FILLER}The code of calm-otter is 4711.\n\n{FILLER}The code of red-heron is 88.\n\n",
    )
    with fed_tokens() as tokens:
        answer = session.answer("What are the codes of calm-otter and red-heron?", sampling=SHORT)
        assert answer.text is not None
    fed = text_of(toy, tokens)
    names = [set(passage.names) & {"calm-otter", "red-heron"} for passage in answer.passages]
    assert sorted(names, key=min) == [{"calm-otter"}, {"red-heron"}]
    assert fed.count("What are the codes") == 1
    assert "4711" in fed
    assert "is 88" in fed


def test_a_long_question_is_read_with_the_best_passage_alone(toy: Model) -> None:
    session = read(toy.session(text=True), TWO)
    long = QUESTION + " Tell it in verse." * 20
    with fed_tokens() as tokens:
        answer = session.answer(long, sampling=SHORT)
        found = answer.passages
        assert len(found) > 1
        assert answer.text is not None
    assert text_of(toy, tokens).count(QUESTION) == 1
    assert answer.passages == found[:1]
