"""A context that is shifted: which tokens are held, and what llama.cpp's library is told."""

from __future__ import annotations

import random

import pytest

from benchmarks.peers.shifting import LEAST, Discard, Window


def shifted(tokens: list[int], size: int, keep: int) -> tuple[list[int], int]:
    """What llama.cpp's programs hold after tokens that come one by one, and how often they shift.

    ``if (n_past + 1 >= n_ctx)``: ``n_left = n_past - n_keep``, ``n_discard = n_left / 2``.
    """
    held: list[int] = []
    shifts = 0
    for token in tokens:
        if len(held) + 1 >= size:
            discard = (len(held) - keep) // 2
            del held[keep : keep + discard]
            shifts += 1
        held.append(token)
    return held, shifts


@pytest.mark.parametrize("seed", range(20))
def test_any_pieces_hold_what_single_tokens_hold(seed: int) -> None:
    random_ = random.Random(seed)
    keep = random_.randrange(9)
    size = keep + LEAST + random_.randrange(60)
    tokens = list(range(random_.randrange(1, 400)))
    window, held, first = Window(size, keep), [], 0
    while first < len(tokens):
        count = min(random_.randrange(1, 100), len(tokens) - first)
        for part in window.parts(count, batch=32):
            if isinstance(part, Discard):
                assert part.held == len(held) and part.by == part.end - part.first > 0
                del held[part.first : part.end]
            else:
                assert 0 < part <= 32
                held += tokens[first : first + part]
                first += part
                assert len(held) < size
    assert (held, window.shifts) == shifted(tokens, size, keep)
    assert window.held == len(held)


def test_a_whole_context_never_discards() -> None:
    window = Window(0, 0)
    assert list(window.parts(1000, batch=512)) == [512, 488]
    assert list(window.parts(1, batch=512)) == [1]
    assert window.held == 1001 and window.shifts == 0


def test_half_of_what_follows_the_kept_tokens_goes() -> None:
    window = Window(11, 2)
    assert list(window.parts(12, batch=512)) == [10, Discard(2, 6, 10), 2]
    assert window.held == 8


def test_a_context_that_is_hardly_larger_than_what_is_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="67 tokens that keeps 64"):
        Window(67, 64)
