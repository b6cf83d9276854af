"""An array that is made when a file is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Part:
    """An array whose values are made when they are asked for.

    Args:
        shape: of the array.
        dtype: of its values.
        load: makes it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Of all values."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def reshape(self, *shape: int) -> Part:
        """The same values in another shape, of whose sizes one may be -1."""
        known = -int(np.prod(shape))
        sizes = tuple(int(np.prod(self.shape)) // known if n == -1 else n for n in shape)
        return Part(sizes, self.dtype, lambda: self.load().reshape(sizes))

    def turned(self) -> Part:
        """The transpose of a matrix, as a copy."""
        return Part(self.shape[::-1], self.dtype, lambda: np.ascontiguousarray(self.load().T))
