"""How much texts are like a question, by the model's own embedding of their tokens.

A question is asked in other words than the text's: "acquire" for "bought". A model's embedding has
such words close to each other, so no second model is needed. For each token of the question counts
the most similar token of a text, and a token counts more the fewer of the texts have it: the late
interaction of ColBERT (https://arxiv.org/abs/2004.12832), with tokens out of their context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.passages.identifiers import words_alone

Rows = Callable[[NDArray[np.int64], int], NDArray[np.float32]]
"""Rows of the embedding: tokens [n] and a width to [n, width]."""

LEAST_VOCABULARY = 8192
"""Tokens of the smallest vocabulary whose tokens are words by and large: parts of words mean
nothing by themselves."""

WIDTH = 256
"""Elements of a row that are compared: more change little and take longer."""

_LARGEST = np.float32(1e15)
"""Of an element: squares of larger ones are not finite, and no model has them."""

_SAMPLE = 4096
"""Tokens whose mean is taken off every row: what all have in common tells nothing."""


Judge = Callable[[Sequence[str]], Sequence[float]]
"""Tells of texts how well each answers to a question; larger is better."""


class Likeness:
    """Compares questions and texts token by token.

    Args:
        encode: tokens of a text, without any that are put before every text.
        rows: of the embedding.
        vocabulary: its tokens.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], rows: Rows, vocabulary: int) -> None:
        self._encode, self._rows, self._vocabulary = encode, rows, vocabulary
        self._mean: NDArray[np.float32] | None = None

    def __call__(self, question: str, texts: Sequence[str]) -> Judge:
        """A judge of texts for one question.

        Args:
            question: of the user.
            texts: among which its answer may be; they say how rare a token is.

        Returns:
            Scores from 0 to 1, which are comparable for one question only.
        """
        asked, found = self._tokens(question), [self._tokens(text) for text in texts]
        if not len(asked) or not found:
            return lambda others: [0.0] * len(others)
        known, counts = np.unique(np.concatenate(found), return_counts=True)
        held = np.zeros(len(asked))
        if len(known):
            at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
            held = np.where(known[at] == asked, counts[at], 0)
        weights = np.log1p((len(texts) - held + 0.5) / (held + 0.5))
        weights, rows = weights / weights.sum(), self._unit(asked)

        def judge(others: Sequence[str]) -> Sequence[float]:
            scores = np.zeros(len(others))
            tokens = [self._tokens(text) for text in others]
            lengths = np.array([len(one) for one in tokens], np.int64)
            filled = np.flatnonzero(lengths)
            if len(filled):
                known, places = np.unique(np.concatenate(tokens), return_inverse=True)
                near = np.square(np.clip(rows @ self._unit(known).T, 0, 1))
                starts = (np.cumsum(lengths) - lengths)[filled]
                for weight, row in zip(weights, near, strict=True):
                    scores[filled] += weight * np.maximum.reduceat(row[places], starts)
            told: list[float] = scores.tolist()
            return told

        return judge

    def _tokens(self, text: str) -> NDArray[np.int64]:
        """Different tokens of the words of a text, as they would be in a question in lower case."""
        tokens = self._encode(f" {words_alone(text).lower()}")
        return np.unique(np.fromiter(tokens, np.int64, len(tokens)))

    def _unit(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of length 1, without what all have in common."""
        if self._mean is None:
            some = np.linspace(0, self._vocabulary - 1, _SAMPLE).astype(np.int64)
            self._mean = self._finite(some).mean(axis=0)
        rows = self._finite(tokens) - self._mean
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    def _finite(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of tokens; what a damaged file has that no norm can be taken of counts for none."""
        rows = self._rows(tokens, WIDTH)
        return np.where(np.abs(rows) < _LARGEST, rows, np.float32(0))
