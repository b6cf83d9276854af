"""Choosing the next token from a vector of logits: pure functions, no state.

The random number of a token depends on the seed and on the token's position alone, so a
restored session draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.errors import SessionStateError, UsageError

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 256
MAX_SEED = (1 << 63) - 1
_LIKELY = (1e-2, 1e-4, 1e-7)
"""Weights, against that of the likeliest token, from which on tokens are looked at first: few are
as likely, and sorting or cutting a whole vocabulary takes a tenth of the step of a small model."""

_COLDEST = 1e-30
"""Lower temperatures are no other ones: in float32 they would be 0."""

_BLOCK = 512

# (lowest, highest, whether the lowest itself is allowed, must be whole)
_RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "temperature": (0.0, 100.0, True, False),
    "top_k": (0, 1 << 22, True, True),
    "top_p": (0.0, 1.0, False, False),
    "min_p": (0.0, 1.0, True, False),
    "repetition_penalty": (0.0, 100.0, False, False),
    "seed": (0, MAX_SEED, True, True),
    "max_tokens": (1, 1 << 20, True, True),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn.

    Args:
        temperature: 0 takes the most probable token every time.
        top_k: keep this many tokens; 0 keeps all.
        top_p: keep the most probable tokens that together reach this probability; 1 keeps all.
        min_p: keep tokens at least this fraction as probable as the best; 0 keeps all.
        repetition_penalty: above 1, tokens seen recently become less likely.
        seed: same seed, same answer; None lets the session choose one.
        max_tokens: longest answer.
        stop: texts that end the answer and are not shown.

    Raises:
        UsageError: a value is outside its range; the text names it and the range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _RANGES:
            value = getattr(self, name)
            if not (name == "seed" and value is None):
                _check(name, value)
        if not isinstance(self.stop, tuple) or not all(isinstance(s, str) for s in self.stop):
            raise UsageError(f"stop is {self.stop!r}.", "Give a tuple of texts.")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise UsageError(
                f"There are {len(self.stop)} stop strings.", f"Give at most {MAX_STOP_STRINGS}."
            )
        for text in self.stop:
            if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
                raise UsageError(
                    f"A stop string has {len(text)} characters.",
                    f"Each must have 1 to {MAX_STOP_CHARACTERS}.",
                )


def _check(name: str, value: Any) -> None:
    low, high, low_allowed, whole = _RANGES[name]
    allowed = (int,) if whole else (int, float)
    right = isinstance(value, allowed) and not isinstance(value, bool)
    # An integer may be larger than any float.
    right = right and (isinstance(value, int) or math.isfinite(value))
    if not right or not low <= value <= high or (value == low and not low_allowed):
        kind = "an integer" if whole else "a number"
        least = f"from {low:g} to" if low_allowed else f"above {low:g} and at most"
        most = f"{high:,}" if whole else f"{high:g}"
        raise UsageError(f"{name} is {value!r:.80}.", f"It must be {kind} {least} {most}.")


def pick(
    logits: NDArray[np.floating[Any]],
    sampling: Sampling,
    recent: Sequence[int],
    position: int,
    seed: int,
) -> int:
    """The next token.

    Args:
        logits: [vocab_size]; minus infinity forbids a token.
        sampling: how to draw; its own ``seed`` is not read.
        recent: tokens the repetition penalty applies to.
        position: absolute position of the new token.
        seed: 0 to ``MAX_SEED``.

    Raises:
        SessionStateError: a logit is NaN or plus infinity, or all are minus infinity.
    """
    scores: NDArray[np.floating[Any]] = np.asarray(logits)
    # Of values with a NaN among them, the NaN counts as the largest.
    best = int(np.argmax(scores)) if scores.size else 0
    if not (scores.size and math.isfinite(scores[best])):
        raise SessionStateError(
            f"The model's logits at position {position} are not finite.",
            "Take the session back to its last good state, or reset it.",
        )
    if sampling.repetition_penalty != 1.0 and len(recent):
        scores = _penalised(scores, recent, sampling.repetition_penalty)
        best = int(np.argmax(scores))
    if sampling.temperature == 0.0 or sampling.top_k == 1:
        return best
    tokens, weights = _candidates(scores, scores[best], sampling)
    return int(tokens[_drawn(weights, _uniform(seed, position))])


def _drawn(weights: NDArray[np.floating[Any]], share: float) -> int:
    """Index of the weight at which the running sum passes a share of the whole.

    Sums of blocks come first: the running sum of a whole vocabulary takes longer.
    """
    starts = np.arange(0, len(weights), _BLOCK)
    blocks = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    wanted = share * blocks[-1]
    block = min(int(np.searchsorted(blocks, wanted, side="right")), len(blocks) - 1)
    start = block * _BLOCK
    before = blocks[block - 1] if block else 0.0
    total = before + np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
    inside = int(np.searchsorted(total, wanted, side="right"))
    # Rounding may leave the sum of the last block a little below the whole.
    while inside >= len(total) or weights[start + inside] == 0.0:
        inside -= 1
    return start + inside


def _penalised(
    scores: NDArray[np.floating[Any]], recent: Sequence[int], penalty: float
) -> NDArray[np.floating[Any]]:
    """Divide positive and multiply negative logits of seen tokens (arXiv 1909.05858, 4.1)."""
    seen = np.asarray(recent, dtype=np.int64)
    values = scores[seen]
    scores = scores.copy()
    # A token that was seen twice gets the same value twice.
    scores[seen] = np.where(values > 0, values / penalty, values * penalty)
    return scores


def _candidates(
    scores: NDArray[np.floating[Any]], best: np.floating[Any], sampling: Sampling
) -> tuple[NDArray[np.int64] | range, NDArray[np.floating[Any]]]:
    """Tokens still allowed and their unnormalized probabilities, in an order that is fixed."""
    temperature = scores.dtype.type(max(sampling.temperature, _COLDEST))
    with np.errstate(over="ignore"):  # a tiny temperature sends the others to minus infinity
        weights = np.exp((scores - best) / temperature)
    if sampling.top_k:
        tokens = _likeliest(weights, sampling.top_k)[: sampling.top_k]
        if sampling.top_p < 1.0:
            tokens = _nucleus(weights, tokens, sampling.top_p * _total(weights[tokens]))
    elif sampling.top_p < 1.0:
        tokens = _heaviest_of(weights, sampling.top_p * _total(weights))
    elif sampling.min_p == 0.0:
        return range(len(weights)), weights
    else:
        tokens = np.flatnonzero(weights >= sampling.min_p)
    # The likeliest token always has the weight 1.
    tokens = tokens[weights[tokens] >= sampling.min_p]
    return tokens, weights[tokens]


def _likeliest(weights: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """At least the ``count`` heaviest tokens, heaviest first, equal ones by their ids.

    More than ``count`` come where several weigh as much as the last, so that which of them are
    taken depends on nothing but their ids.
    """
    tokens = np.arange(len(weights))
    for least in _LIKELY:
        likely = np.flatnonzero(weights >= least)
        if len(likely) >= count:  # so no other token is among the heaviest
            tokens = likely
            break
    if count < len(tokens):
        found = weights[tokens]
        threshold = np.partition(found, len(found) - count)[len(found) - count]
        tokens = tokens[found >= threshold]
    return _in_order(weights, tokens)


def _heaviest_of(weights: NDArray[np.floating[Any]], enough: float) -> NDArray[np.int64]:
    """The heaviest tokens that together weigh ``enough``."""
    for least in _LIKELY:
        likely = np.flatnonzero(weights >= least)
        if _total(weights[likely]) >= enough:
            break
    else:
        likely = np.arange(len(weights))
    return _nucleus(weights, _in_order(weights, likely), enough)


def _in_order(weights: NDArray[np.floating[Any]], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Heaviest first, equal ones by their ids."""
    return tokens[np.argsort(-weights[tokens], kind="stable")]


def _total(weights: NDArray[np.floating[Any]]) -> float:
    return float(weights.sum(dtype=np.float64))


def _nucleus(
    weights: NDArray[np.floating[Any]], tokens: NDArray[np.int64], enough: float
) -> NDArray[np.int64]:
    """The first tokens that together weigh ``enough``, and never none."""
    taken = weights[tokens].astype(np.float64)
    before = np.cumsum(taken) - taken
    return tokens[: max(1, int(np.count_nonzero(before < enough)))]


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on its arguments only."""
    return float(np.random.Generator(np.random.Philox(key=[seed, position])).random())
