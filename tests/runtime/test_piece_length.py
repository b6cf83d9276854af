"""The length of the pieces a text is read in: one default, and what a session may be told."""

from __future__ import annotations

import numpy as np
import pytest

from allmem_runtime import Model
from allmem_runtime.errors import UsageError


@pytest.mark.parametrize("tokens", [0, 49, True])
def test_a_session_refuses_impossible_pieces(toy: Model, tokens: int) -> None:
    session = toy.session()
    with pytest.raises(UsageError, match="1 to 48"):
        session.piece = tokens
    assert session.piece == toy.piece


def test_a_fork_reads_in_pieces_of_the_same_length_with_the_same_result(toy: Model) -> None:
    session, ids = toy.session(), [5, 7, 11] * 30
    session.piece = 7
    session.feed(ids)
    fork = session.fork()
    assert fork.piece == 7
    fork.piece = 48
    other = toy.session()
    other.feed(ids)
    for reader in (session, fork):
        np.testing.assert_array_equal(
            reader.feed([3], logits="last"), other.fork().feed([3], logits="last")
        )
