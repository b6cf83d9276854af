"""Feeding tokens gives the logits that were asked for, and changes nothing when refused."""

from __future__ import annotations

import numpy as np
import pytest
from session_tools import DOCUMENT, assert_same, fed_tokens

from allmem_runtime import Model, UsageError


def test_logits_of_all_tokens_hold_those_of_the_last(toy: Model) -> None:
    ids = [3 + i % 300 for i in range(130)]
    every = toy.session().feed(ids, "all")
    last = toy.session().feed(ids, "last")
    assert every is not None and last is not None

    assert every.shape == (130, toy.manifest.backbone.vocab_size)
    np.testing.assert_array_equal(every[-1], last)
    single = toy.session()
    for token, row in zip(ids, every, strict=True):
        np.testing.assert_array_equal(single.feed([token], "last"), row)


def test_waiting_tokens_get_no_rows(toy: Model) -> None:
    session = toy.session()
    for _ in session.ingest(DOCUMENT):
        break
    assert session.pending

    rows = list(session.logits_all([3, 4]))

    assert sum(len(r) for r in rows) == 2


def test_fed_logits_stay_what_they_were(toy: Model) -> None:
    session = toy.session()
    first = session.feed([3], "last")
    assert first is not None
    kept = first.copy()
    session.feed([4], "last")

    np.testing.assert_array_equal(first, kept)


def test_feeding_adds_nothing(toy: Model) -> None:
    with fed_tokens() as tokens:
        assert toy.session().feed(np.array([7, 8])) is None

    assert tokens == [7, 8]


@pytest.mark.parametrize(
    ("ids", "logits", "message"),
    [
        ([330], "none", "330 is no token"),
        ([-1], "none", "-1 is no token"),
        ([1.5], "none", "no integer"),
        (["a"], "none", "no integer"),
        ([], "last", "no token to give logits of"),
        ([], "all", "no token to give logits of"),
        ([3], "some", "logits is 'some'"),
    ],
)
def test_what_cannot_be_fed_is_refused_and_changes_nothing(
    toy: Model, ids: list[int], logits: str, message: str
) -> None:
    session = toy.session()
    with pytest.raises(UsageError, match=message):
        session.feed(ids, logits)  # type: ignore[arg-type]
    assert_same(session, toy.session())
