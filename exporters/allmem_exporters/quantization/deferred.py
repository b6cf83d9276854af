"""Matrices that are stored when the file is written, one after the other.

Sizes are known before: a graph is made with ``Part``s, and each is asked for its values once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from allmem_exporters.quantization.blocks import Matrix
from allmem_exporters.quantization.part import Part
from allmem_exporters.quantization.stored_format import Carried, StoredFormat, StoredMatrix

_SMALL = 1 << 16
"""Bytes of a part that is kept: it may be asked for long after the others, with the graph."""


class Storing:
    """Stores matrices when their first part is asked for, and forgets each with the next.

    Args:
        progress: is told how many weights of how many are stored, some times for each matrix.
    """

    def __init__(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        self._progress, self._total = progress, 0
        self._latest: StoredMatrix | None = None
        self.carried = Carried()
        """Weights so far that the source's own blocks gave."""
        self.weights = 0
        """Weights so far."""
        self._small: dict[tuple[str, str], NDArray[Any]] = {}

    def later(self, stored_as: StoredFormat, matrix: Matrix, name: str) -> StoredMatrix:
        """The matrix as it will be stored.

        Args:
            stored_as: the format.
            matrix: read when its values are asked for; before, only where its format's layout
                depends on its values.
            name: of the matrix in the graph.
        """
        layout = stored_as.layout(matrix)

        def part(which: str) -> Part:
            shape, dtype = layout[which]
            return Part(shape, dtype, lambda: self._load(stored_as, matrix, name, which))

        rows, columns = matrix.shape
        self._total += rows * columns
        return StoredMatrix(name, stored_as, rows, columns, {one: part(one) for one in layout})

    def _load(self, stored_as: StoredFormat, matrix: Matrix, name: str, which: str) -> NDArray[Any]:
        if (kept := self._small.get((name, which))) is not None:
            return kept
        if self._latest is None or self._latest.name != name:
            self._latest = None  # before the next takes memory
            self._latest = stored_as.quantize(_Watched(matrix, self._tell), name)
            self.carried += self._latest.carried
            self.weights += self._latest.rows * self._latest.columns
            for part, array in self._latest.tensors.items():
                if array.nbytes < _SMALL:
                    self._small[name, part] = array
        found: NDArray[Any] = self._latest.tensors[which]
        return found

    def _tell(self, weights: int) -> None:
        self._progress(self.weights + weights, self._total)


class _Watched:
    """A matrix that tells how many of its weights were read.

    Args:
        matrix: that is read.
        tell: is told them before each reading.
    """

    def __init__(self, matrix: Matrix, tell: Callable[[int], None]) -> None:
        self._matrix, self._tell = matrix, tell
        self.shape = matrix.shape

    def rows(self, first: int, end: int) -> Tensor:
        """See ``Matrix``."""
        self._tell(first * self.shape[1])
        return self._matrix.rows(first, end)

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """See ``Matrix``."""
        return self._matrix.block_factors(first, end)
