"""A node as far as the shapes of its values depend on it, and what rules about them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from allmem_runtime.files.graph_nodes import MOST_AXES, Dims, Node, Tensor

Shape = tuple[int | None, ...]


class ShapeError(ValueError):
    """Why a node may not be run; follows its operator's name."""


class Call(NamedTuple):
    """A node, the shapes of its inputs, and the numbers in those that are known lists of a few.

    None stands for an input that is left out, and for numbers that are not known.
    """

    node: Node
    given: Sequence[Shape | None]
    lists: Sequence[Dims | None] = ()

    def shape(self, index: int) -> Shape:
        """Of an input that must be there."""
        shape = self.given[index] if index < len(self.given) else None
        if shape is None:
            raise ShapeError("lacks an input")
        return shape

    def shapes(self) -> list[Shape]:
        """Of all inputs, of which none may be left out."""
        return [self.shape(index) for index in range(len(self.given))]

    def number(self, name: str, usual: int) -> int:
        """An attribute that is an integer."""
        value = self.node.numbers.get(name, usual)
        return value if isinstance(value, int) else usual

    def numbers(self, name: str) -> Dims | None:
        """An attribute that is several, or the sizes of one that is a tensor."""
        value = self.node.numbers.get(name)
        if isinstance(value, Tensor):
            return value.dims
        return value if isinstance(value, tuple) else None

    def axis(self, rank: int, name: str = "axis", usual: int = 0, beyond: int = 0) -> int:
        """An attribute that is an axis, counted from the first."""
        axis = self.number(name, usual)
        if not -rank <= axis < rank + beyond:
            raise ShapeError(f"has the axis {axis} of {rank}")
        return axis + rank if axis < 0 else axis

    def count(self, index: int) -> int:
        """How many numbers an input holds that is a list of sizes or axes."""
        shape = self.shape(index)
        if len(shape) != 1 or shape[0] is None:
            raise ShapeError("makes a tensor of a number of axes that nothing tells")
        return shape[0]

    def axes(self, index: int, rank: int) -> int:
        """How many axes an input names, each once and of so many that there are.

        ONNX Runtime counts one that is named twice once, and where a tensor is empty it does not
        look whether there is such an axis.
        """
        named = self.lists[index] if index < len(self.lists) else None
        if named is None:
            raise ShapeError("takes away axes that nothing tells")
        if any(not -rank <= axis < rank for axis in named):
            raise ShapeError(f"takes away the axes {list(named)} of {rank}")
        if len({axis % rank for axis in named}) < len(named):
            raise ShapeError(f"takes away an axis twice: {list(named)} of {rank}")
        return len(named)


def unknown(rank: int, length: int | None = None) -> Shape:
    """So many axes of any length, or of one."""
    if rank < 0:
        raise ShapeError("takes away more axes than there are")
    if rank > MOST_AXES:
        raise ShapeError(f"makes a tensor of {rank} axes")
    return (length,) * rank


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of what is computed number by number."""
    rank = max(map(len, shapes), default=0)
    found = []
    for axis in range(-rank, 0):
        lengths = {shape[axis] for shape in shapes if len(shape) >= -axis}
        longer = lengths - {1, None}
        if len(longer) == 1:
            found.append(longer.pop())
        else:
            found.append(None if longer or None in lengths else 1)
    return tuple(found)
