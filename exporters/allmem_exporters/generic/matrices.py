"""The large matrices of a graph on the generic path, by their names in it: read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from allmem_exporters.generic.decoder import BRANCH
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.quantization.blocks import Matrix


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of a model; see ``Matrix``. Sources of the generic path store no blocks.

    Args:
        weights: of the model.
        name: of the weight.
        shape: (rows, columns).
        factor: name of a weight that the rows are multiplied by; None for ones.
    """

    weights: ModelWeights
    name: str
    shape: tuple[int, int]
    factor: str | None = None

    def rows(self, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` in float32."""
        wide = self.weights.rows(self.name, first, end).float()
        if self.factor is None:
            return wide
        return self.weights.tensor(self.factor).float()[first:end, None] * wide

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """See ``Matrix``."""
        return None


@dataclass(frozen=True, slots=True)
class Joined:
    """Several matrices as one; see ``Matrix``.

    Args:
        parts: that are joined.
        axis: 0 where their rows follow each other, for products of one input; 1 where their
            columns do, for products that are added.
    """

    parts: tuple[Matrix, ...]
    axis: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = zip(*(part.shape for part in self.parts), strict=True)
        return (rows[0], sum(columns)) if self.axis else (sum(rows), columns[0])

    def rows(self, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` in float32."""
        if self.axis:
            return torch.cat([part.rows(first, end) for part in self.parts], dim=1)
        found = []
        for part, (start, stop) in zip(self.parts, _edges(self), strict=True):
            low, high = max(first, start), min(end, stop)
            if low < high:
                found.append(part.rows(low - start, high - start))
        return torch.cat(found)

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """See ``Matrix``."""
        return None


def _edges(matrix: Joined) -> Iterator[tuple[int, int]]:
    """Where each part begins and ends along the axis."""
    sizes = (part.shape[matrix.axis] for part in matrix.parts)
    return pairwise([0, *accumulate(sizes)])


@dataclass(frozen=True, slots=True)
class Reordered:
    """A matrix whose rows come in another order; see ``Matrix``.

    Args:
        matrix: the other one.
        order: for each row its place there.
    """

    matrix: Matrix
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.matrix.shape

    def rows(self, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` in float32."""
        found, start = [], first
        for at in range(first + 1, end + 1):
            if at == end or self.order[at] != self.order[at - 1] + 1:
                found.append(self.matrix.rows(self.order[start], self.order[at - 1] + 1))
                start = at
        return torch.cat(found)

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """See ``Matrix``."""
        return None


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a weight stands in a matrix.

    Args:
        weight: of the model.
        rows: of the matrix, those of the weight one after the other.
        column: of the matrix at which it begins.
    """

    weight: Weight
    rows: Tensor
    column: int

    def out_of(self, matrix: Tensor) -> Tensor:
        """The weight, of all values of the matrix."""
        end = self.column + self.weight.shape[1]
        return matrix[self.rows, self.column : end]


def weights_in(matrix: Matrix) -> Iterator[Placed]:
    """The weights that a matrix of this file is made of."""
    if isinstance(matrix, Weight):
        yield Placed(matrix, torch.arange(matrix.shape[0]), 0)
    elif isinstance(matrix, Reordered):
        places = torch.tensor(matrix.order).argsort()
        for one in weights_in(matrix.matrix):
            yield replace(one, rows=places[one.rows])
    else:
        assert isinstance(matrix, Joined)
        for part, (start, _) in zip(matrix.parts, _edges(matrix), strict=True):
            for one in weights_in(part):
                if matrix.axis:
                    yield replace(one, column=one.column + start)
                else:
                    yield replace(one, rows=one.rows + start)


def product_of(weights: ModelWeights, name: str, shape: Sequence[int]) -> Weight:
    """One weight [rows, columns]."""
    return Weight(weights, name, (shape[0], shape[1]))


def memory_products(weights: ModelWeights, path: str) -> dict[str, Matrix]:
    """Of the memory in an attention: what makes queries, keys and values, and what is added."""
    config, own = weights.config, f"{path}.{BRANCH}"
    width, size = config.mem_width, config.hidden_size
    parts = (Weight(weights, f"{own}.{part}_proj.weight", (width, size)) for part in "qkv")
    back = Weight(weights, f"{own}.o_proj.weight", (size, width), f"{own}.alpha")
    return {f"{own}.project.weight": Joined(tuple(parts)), f"{own}.back.weight": back}
