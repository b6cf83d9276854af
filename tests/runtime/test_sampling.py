"""Sampling draws from the distribution it promises, the same for the same seed and position."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allmem_runtime.errors import SessionStateError, UsageError
from allmem_runtime.generation import sampling as sampling_module
from allmem_runtime.generation.sampling import Sampling, pick

PROBABILITIES = np.array([0.05, 0.5, 0.25, 0.15, 0.05])
LOGITS = np.log(PROBABILITIES).astype(np.float32)


def draws(sampling: Sampling, count: int = 4000, recent: tuple[int, ...] = ()) -> np.ndarray:
    chosen = [pick(LOGITS, sampling, recent, position, 7) for position in range(count)]
    return np.bincount(chosen, minlength=5) / count


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        pytest.param(Sampling(), [0, 1, 0, 0, 0], id="greedy by default"),
        pytest.param(Sampling(temperature=1.0), PROBABILITIES, id="temperature 1"),
        pytest.param(
            Sampling(temperature=0.5), PROBABILITIES**2 / (PROBABILITIES**2).sum(), id="colder"
        ),
        pytest.param(Sampling(temperature=1.0, top_k=1), [0, 1, 0, 0, 0], id="top_k 1"),
        pytest.param(Sampling(temperature=1.0, top_k=2), [0, 2 / 3, 1 / 3, 0, 0], id="top_k 2"),
        pytest.param(Sampling(temperature=1.0, top_k=99), PROBABILITIES, id="top_k beyond all"),
        pytest.param(Sampling(temperature=1.0, top_p=0.7), [0, 2 / 3, 1 / 3, 0, 0], id="top_p"),
        pytest.param(Sampling(temperature=1.0, top_p=1e-9), [0, 1, 0, 0, 0], id="tiny top_p"),
        pytest.param(
            Sampling(temperature=1.0, min_p=0.25), [0, 5 / 9, 2.5 / 9, 1.5 / 9, 0], id="min_p"
        ),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(sampling: Sampling, expected: Any) -> None:
    # Four standard deviations of a share drawn 4000 times are at most 0.032.
    np.testing.assert_allclose(draws(sampling), expected, atol=0.032)


def test_the_draw_depends_on_seed_and_position_only() -> None:
    hot = Sampling(temperature=1.0)
    flat = np.zeros(1000, np.float32)
    first = [pick(flat, hot, (), position, 1) for position in range(50)]
    backwards = [pick(flat, hot, (), position, 1) for position in reversed(range(50))]
    assert first == backwards[::-1]
    assert first != [pick(flat, hot, (), position, 2) for position in range(50)]
    assert len(set(first)) > 30


def test_the_penalty_makes_seen_tokens_less_likely() -> None:
    assert pick(LOGITS, Sampling(repetition_penalty=5.0), [1, 1], 0, 0) == 2
    assert pick(-LOGITS, Sampling(repetition_penalty=5.0), [0, 4], 0, 0) == 3
    assert pick(LOGITS, Sampling(repetition_penalty=5.0), [], 0, 0) == 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_k=40),
        Sampling(temperature=1.0, top_p=0.5),
        Sampling(temperature=3.0, top_p=0.99),
        Sampling(temperature=1.0, top_k=3000, top_p=0.9),
        Sampling(temperature=1.0, min_p=0.3),
    ],
    ids=str,
)
def test_a_large_vocabulary_with_ties_is_cut_exactly(sampling: Sampling) -> None:
    logits = np.round(np.random.default_rng(0).normal(0, 2, 5000), 1)
    weights = np.exp((logits - logits.max()) / sampling.temperature)
    order = np.lexsort((np.arange(5000), -weights))[: sampling.top_k or None]
    before = np.cumsum(weights[order]) - weights[order]
    order = order[before < sampling.top_p * weights[order].sum()]
    allowed = set(order[weights[order] >= sampling.min_p])
    seen = {pick(logits, sampling, (), position, 3) for position in range(3000)}
    assert seen <= allowed
    # Of the few hundred likeliest draws nearly all allowed tokens come where there are few.
    assert len(seen) >= min(len(allowed), 300) * 0.9


def test_equal_logits_choose_the_lowest_id() -> None:
    assert pick(np.zeros(9, np.float16), Sampling(), (), 0, 0) == 0


def test_logits_are_left_as_they_were() -> None:
    logits = LOGITS.astype(np.float64)
    pick(logits, Sampling(temperature=1.0, repetition_penalty=2.0, top_k=3), [1], 0, 0)
    np.testing.assert_array_equal(logits, LOGITS.astype(np.float64))


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "drawn"])
def test_logits_that_are_not_finite_are_an_error(value: float, temperature: float) -> None:
    logits = LOGITS.copy()
    logits[3] = value
    with pytest.raises(SessionStateError, match="position 12"):
        pick(logits, Sampling(temperature=temperature), (), 12, 0)


def test_a_forbidden_token_is_never_drawn_and_not_everything_can_be_forbidden() -> None:
    logits = np.array([-np.inf, 0.0])
    assert {pick(logits, Sampling(temperature=9.0), (), p, 0) for p in range(50)} == {1}
    with pytest.raises(SessionStateError):
        pick(np.full(3, -np.inf), Sampling(), (), 0, 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", 10**400), ("top_k", 10**400),
        ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf),
        ("temperature", "1"), ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_p", 0.0),
        ("top_p", 1.01), ("min_p", -1.0), ("min_p", 2.0), ("repetition_penalty", 0.0),
        ("repetition_penalty", -1.0), ("seed", -1), ("seed", 1 << 63), ("max_tokens", 0),
        ("max_tokens", None), ("stop", ("",)), ("stop", ("a" * 257,)), ("stop", ("a",) * 17),
        ("stop", "abc"), ("stop", (1,)),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_outside_its_range_is_refused(option: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Sampling(**{option: value})
    assert "stop" in str(caught.value) or option in str(caught.value)
    assert caught.value.hint


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    st.floats(0, 5), st.integers(0, 50), st.floats(0.001, 1), st.floats(0, 1),
    st.integers(0, 1 << 40), st.integers(0, (1 << 63) - 1),
)  # fmt: skip
def test_any_valid_setting_gives_a_token_of_the_vocabulary(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float,
    position: int, seed: int,
) -> None:  # fmt: skip
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    token = pick(np.array(logits, np.float32), sampling, [0], position, seed)
    assert 0 <= token < len(logits)


@pytest.mark.parametrize("count", [1, 511, 512, 513, 5000])
def test_a_draw_by_blocks_is_a_draw_from_the_running_sum(count: int) -> None:
    weights = np.random.default_rng(count).random(count).astype(np.float32) ** 8
    weights[::3] = 0.0
    weights[count // 2] = 1.0
    total = np.cumsum(weights, dtype=np.float64)
    for share in [0.0, *np.random.default_rng(1).random(300), np.nextafter(1.0, 0.0)]:
        found = sampling_module._drawn(weights, share)
        assert weights[found] > 0.0
        # The same index but for shares within rounding of an edge.
        low = total[found] - weights[found]
        assert low - 1e-9 <= share * total[-1] <= total[found] + 1e-9
