"""Arguments of sessions that cannot be meant: refused by name, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from session_tools import assert_same, read
from teapot_book import BOOK, QUESTION, room

from allmem_runtime import Model, Session, UsageError, load

__all__ = ["room"]

NO_TEXT = (1, None, b"Where?", ["Where?"])
NO_TEXT_OR_NONE = (1, 0, b"", ["Be brief."])
NO_SAMPLING = (0.5, "greedy", {"temperature": 1})
NO_COUNT = (-1, 1.5, float("nan"), "3", None, True, object())
NO_TOKENS = (None, 1, ["a"], [1.5], [-1], [[1]], "abc")
NO_PATH = (None, 1, b"s.allmem", "", "\0", ["s.allmem"])

CALLS: dict[str, tuple[tuple[Any, ...], Callable[[Session, Any], Any]]] = {
    "answer question": (NO_TEXT, lambda s, v: s.answer(v)),
    "answer passages": (
        (*NO_COUNT, [1], {"a"}, [QUESTION]),
        lambda s, v: s.answer(QUESTION, passages=v),
    ),
    "answer sampling": (NO_SAMPLING, lambda s, v: s.answer(QUESTION, sampling=v)),
    "answer system": (NO_TEXT_OR_NONE, lambda s, v: s.answer(QUESTION, system=v)),
    "ask question": (NO_TEXT, lambda s, v: s.ask(v)),
    "ask passages": ((*NO_COUNT, [1]), lambda s, v: s.ask(QUESTION, passages=v)),
    "ask sampling": (NO_SAMPLING, lambda s, v: s.ask(QUESTION, sampling=v)),
    "ask system": (NO_TEXT_OR_NONE, lambda s, v: s.ask(QUESTION, system=v)),
    "find question": (NO_TEXT, lambda s, v: s.find_passages(v)),
    "find passages": (NO_COUNT, lambda s, v: s.find_passages(QUESTION, v)),
    "reply sampling": (NO_SAMPLING, lambda s, v: list(s.reply(sampling=v))),
    "generate text": (NO_TEXT, lambda s, v: list(s.generate(v))),
    "generate sampling": (NO_SAMPLING, lambda s, v: list(s.generate("x", sampling=v))),
    "ingest system": (NO_TEXT_OR_NONE, lambda s, v: s.ingest("x", system=v)),
    "ingest name": (NO_TEXT, lambda s, v: s.ingest("x", name=v)),
    "ingest location": (NO_TEXT, lambda s, v: s.ingest("x", location=v)),
    "ingest mark": ((1, "book.txt", ["x"]), lambda s, v: s.ingest("x", mark=v)),
    "feed ids": (NO_TOKENS, lambda s, v: s.feed(v)),
    "feed all ids": (NO_TOKENS, lambda s, v: s.feed(v, "all")),
    "logits_all ids": (NO_TOKENS, lambda s, v: list(s.logits_all(v))),
    "likelihood ids": (NO_TOKENS, lambda s, v: s.likelihood(v, range(1))),
    "likelihood told": ((None, 1, [1]), lambda s, v: s.likelihood([5, 6], v)),
    "piece": ((None, 1.5, "8", 8.0, 0, True), lambda s, v: setattr(s, "piece", v)),
    "save path": (NO_PATH, lambda s, v: s.save(v)),
    "open path": (NO_PATH, lambda s, v: s.model.open(v)),  # type: ignore[attr-defined]
    "session text": (NO_PATH, lambda s, v: s.model.session(text=v)),  # type: ignore[attr-defined]
    "load path": ((None, 1, b"model", 1.5), lambda s, v: load(v)),
    "keep_text text": ((1, "book.allmem"), lambda s, v: s.keep_text(v)),
    "lose_text error": ((1, "it is gone"), lambda s, v: s.lose_text(v)),
}


@pytest.fixture(scope="module")
def session(toy: Model) -> Session:
    return read(toy.session(text=True), BOOK)


@pytest.mark.parametrize("call", CALLS)
def test_a_value_that_cannot_be_meant_is_refused_by_name(session: Session, call: str) -> None:
    values, attempt = CALLS[call]
    before = session.fork()
    for value in values:
        with pytest.raises(UsageError):
            attempt(session, value)
    assert_same(session, before)
    assert session.text_failure == ""


def test_the_error_tells_argument_and_value(session: Session) -> None:
    with pytest.raises(UsageError, match=r"passages is -1\. Give how many at most, 0 or more"):
        session.answer(QUESTION, passages=-1)
    with pytest.raises(UsageError, match=r"question is b'Where\?'\. Give a text\."):
        session.find_passages(b"Where?")  # type: ignore[arg-type]


def test_numbers_of_numpy_and_any_iterable_are_as_good(session: Session) -> None:
    found = session.find_passages(QUESTION, np.int64(2))  # type: ignore[arg-type]
    assert found == session.find_passages(QUESTION, 2) != []
    chosen = session.answer(QUESTION, passages=(one for one in found))  # type: ignore[arg-type]
    assert chosen.passages == tuple(found)
    fork = session.fork()
    fork.feed(np.array([5, 6]))  # type: ignore[arg-type]
    fork.feed(token for token in (5, 6))  # type: ignore[arg-type]
    assert fork.position == session.position + session.pending + 4
