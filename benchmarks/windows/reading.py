"""Reads a text as a model with given rings would, whose decoder is frozen and has no memories."""

from __future__ import annotations

from torch import Tensor

from allmem_exporters.finetune.attention import project
from allmem_exporters.finetune.passes import Passes
from benchmarks.windows.attention import ring_attention
from benchmarks.windows.scores import Scorer, surprise
from benchmarks.windows.ways import Way


class Reader:
    """Reads by one way after another.

    Args:
        passes: the frozen decoder.
        sinks: first tokens that all see.
        learned: the score of ways that choose by it.
    """

    def __init__(self, passes: Passes, sinks: int, learned: Scorer | None = None) -> None:
        self._passes, self._sinks, self._learned = passes, sinks, learned
        self._surprised: tuple[Tensor, Way, Scorer] | None = None

    def read(self, ids: Tensor, way: Way) -> Tensor:
        """Normed hidden states [1, time, hidden_size] of ids [1, time].

        Surprise is that of the same model with as many rows, all of them the latest.
        """
        scorer = None
        if way.choice and way.choice.score == "surprise":
            scorer = self._surprise(ids, way.latest())
        elif way.choice:
            scorer = self._learned
        hidden = self._passes.embed(ids)
        for number, layer in enumerate(self._passes.decoder.layers):
            x = self._passes.read(layer, hidden)
            heads, rings = project(layer.self_attn, x), way.rings[number]
            scores = scorer(number, x) if scorer else None
            mixed = ring_attention(layer.self_attn, heads, rings, self._sinks, scores)
            hidden = self._passes.after(layer, hidden, x, mixed)
        return self._passes.last_norm(hidden)

    def _surprise(self, ids: Tensor, latest: Way) -> Scorer:
        """Read once for ways that differ in nothing but how many rows are chosen."""
        last = self._surprised
        if last is None or last[0] is not ids or last[1] != latest:
            scorer = surprise(self._passes, self.read(ids, latest), ids)
            self._surprised = last = (ids, latest, scorer)
        return last[2]
