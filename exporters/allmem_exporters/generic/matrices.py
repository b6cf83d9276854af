"""The large matrices of a graph on the generic path, by their names in it: read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from allmem_exporters.generic.decoder import BRANCH
from allmem_exporters.model.weights import ModelWeights


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of some weights, one weight after the other; see ``Matrix``.

    Args:
        weights: of the model.
        parts: names of the weights.
        sizes: rows of each.
        columns: of all.
        factor: name of a weight that the rows are multiplied by; None for ones.
    """

    weights: ModelWeights
    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    columns: int
    factor: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return sum(self.sizes), self.columns

    def rows(self, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` in float32."""
        found = []
        edges = pairwise([0, *accumulate(self.sizes)])
        for name, (start, stop) in zip(self.parts, edges, strict=True):
            low, high = max(first, start), min(end, stop)
            if low < high:
                found.append(self.weights.rows(name, low - start, high - start).float())
        wide = torch.cat(found)
        if self.factor is None:
            return wide
        return self.weights.tensor(self.factor).float()[first:end, None] * wide

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """See ``Matrix``; sources of the generic path store no blocks."""
        return None


def product_of(weights: ModelWeights, name: str, shape: Sequence[int]) -> Rows:
    """One weight [rows, columns]."""
    return Rows(weights, (name,), (shape[0],), shape[1])


def memory_products(weights: ModelWeights, path: str) -> dict[str, Rows]:
    """Of the memory in an attention: what makes queries, keys and values, and what is added."""
    config, own = weights.config, f"{path}.{BRANCH}"
    width, size = config.mem_width, config.hidden_size
    names = tuple(f"{own}.{part}_proj.weight" for part in "qkv")
    return {
        f"{own}.project.weight": Rows(weights, names, (width,) * 3, size),
        f"{own}.back.weight": Rows(
            weights, (f"{own}.o_proj.weight",), (size,), width, f"{own}.alpha"
        ),
    }
