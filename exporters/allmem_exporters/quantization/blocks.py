"""A matrix cut into blocks of 32 weights, and into rows few enough to fit in a CPU's caches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 32
"""Neighbors along the inputs that share a scale."""

_BLOCKS_AT_ONCE = 1 << 12
"""Blocks that are rounded together. Four buffers of them fit in the second cache; half as many
cost more in calls than they gain."""


class Matrix(Protocol):
    """A matrix [outputs, inputs] that is read some rows at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""

    def rows(self, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1``."""

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """Scale and minimum of each block in which the source stores these rows.

        Returns:
            [rows, blocks, 2] float32, no numbers where a block is stored otherwise; None if all
            are.
        """


class InMemory:
    """A tensor as a ``Matrix``."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.shape = (tensor.shape[0], tensor.shape[1])

    def rows(self, first: int, end: int) -> Tensor:
        """See ``Matrix``."""
        return self.tensor[first:end]

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """See ``Matrix``."""
        return None


def as_matrix(matrix: Matrix | Tensor) -> Matrix:
    """A tensor as a ``Matrix``; anything else is one."""
    return InMemory(matrix) if isinstance(matrix, Tensor) else matrix


def largest_of(matrix: Matrix) -> float:
    """The largest size of a value."""
    pieces = (matrix.rows(*piece).abs().max() for piece in row_pieces(*matrix.shape))
    return float(torch.stack(list(pieces)).max())


def block_count(columns: int) -> int:
    """Blocks of a row; the last is padded."""
    return -(-columns // BLOCK)


def in_blocks(rows: Tensor) -> Tensor:
    """Rows [rows, columns] as float32 blocks [rows, blocks, BLOCK], padded with zeros."""
    count = block_count(rows.shape[1])
    wide = functional.pad(rows.float(), (0, count * BLOCK - rows.shape[1]))
    return wide.reshape(len(rows), count, BLOCK)


def row_pieces(rows: int, columns: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """(first row, last row + 1) of pieces of a matrix that are worked on at once.

    Args:
        rows: of the matrix.
        columns: likewise.
        multiple: of which every first row is one.
    """
    step = max(1, _BLOCKS_AT_ONCE // block_count(columns) // multiple) * multiple
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def divisor(x: Tensor) -> Tensor:
    """One where ``x`` is nothing: a block of zeros stays zero."""
    return torch.where(x == 0, 1.0, x)
