"""Where numbers go that are only moved: transposed, cut, joined and put in another order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from allmem_exporters.generic.passes.values import constant

Places = NDArray[np.int64]


class NotMoved(Exception):
    """A value is made otherwise than by moving numbers of one other value."""


def _reshape(node: ir.Node, x: Places) -> list[Places]:
    sizes = [x.shape[at] if size == 0 else size for at, size in enumerate(_integers(node, 1))]
    return [x.reshape(sizes)]


def _transpose(node: ir.Node, x: Places) -> list[Places]:
    return [x.transpose(node.attributes.get_ints("perm", tuple(range(x.ndim))[::-1]))]


def _split(node: ir.Node, x: Places) -> list[Places]:
    axis = node.attributes.get_int("axis", 0)
    if len(node.inputs) > 1:
        return np.split(x, np.cumsum(_integers(node, 1))[:-1], axis)
    step = -(-x.shape[axis] // len(node.outputs))
    return np.split(x, range(step, x.shape[axis], step), axis)


def _slice(node: ir.Node, x: Places) -> list[Places]:
    starts, ends = _integers(node, 1), _integers(node, 2)
    axes = _integers(node, 3) if len(node.inputs) > 3 else list(range(len(starts)))
    steps = _integers(node, 4) if len(node.inputs) > 4 else [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            raise NotMoved
        cut[axis] = slice(start, end, step)
    return [x[tuple(cut)]]


def _gather(node: ir.Node, x: Places) -> list[Places]:
    indices = constant(node.inputs[1])
    if indices is None or indices.ndim > 1:
        raise NotMoved
    return [x.take(indices.astype(np.int64), axis=node.attributes.get_int("axis", 0))]


def _squeeze(node: ir.Node, x: Places) -> list[Places]:
    return [x.squeeze(tuple(_integers(node, 1)))]


def _unsqueeze(node: ir.Node, x: Places) -> list[Places]:
    return [np.expand_dims(x, tuple(_integers(node, 1)))]


_MOVES: dict[str, Callable[[ir.Node, Places], list[Places]]] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}


def _integers(node: ir.Node, at: int) -> list[int]:
    found = constant(node.inputs[at])
    if found is None or not np.issubdtype(found.dtype, np.integer):
        raise NotMoved
    return [int(one) for one in found.reshape(-1)]


class Movement:
    """How a value is made of one other by nodes that only move numbers.

    Args:
        value: that is made.
        stop: a value that is taken for the source wherever it is met.

    Attributes:
        source: the other value; the same where nothing moves.
        nodes: those that move.

    Raises:
        NotMoved: it is made of several others, or of constants.
    """

    def __init__(self, value: ir.Value, stop: ir.Value | None = None) -> None:
        self.value = value
        self.nodes: set[ir.Node] = set()
        sources: set[ir.Value] = set()
        waiting = [value]
        while waiting:
            one = waiting.pop()
            node = one.producer()
            if (
                one is stop
                or node is None
                or (node.op_type not in _MOVES and node.op_type != "Concat")
            ):
                sources.add(one)
            elif node not in self.nodes:
                self.nodes.add(node)
                moved = node.inputs if node.op_type == "Concat" else node.inputs[:1]
                waiting += [given for given in moved if given is not None]
        if len(sources) != 1:
            raise NotMoved
        (self.source,) = sources

    def is_read_elsewhere(self) -> bool:
        """Whether something that is moved is read by others, too; parts of a split may be."""
        made = {output for node in self.nodes for output in node.outputs} - {self.value}
        made = {one for one in made if any(use.node in self.nodes for use in one.uses())}
        return any(use.node not in self.nodes for one in made for use in one.uses())

    def places(self, shape: tuple[int, ...]) -> Places:
        """For each number of the value its place in the source, whose numbers are counted.

        Args:
            shape: of the source.

        Raises:
            NotMoved: the sizes of a step are not known.
        """
        known = {self.source: np.arange(np.prod(shape)).reshape(shape)}
        try:
            return self._of(self.value, known)
        except (ValueError, IndexError):
            raise NotMoved from None

    def _of(self, value: ir.Value | None, known: dict[ir.Value, Places]) -> Places:
        if value is None:
            raise NotMoved
        if value not in known:
            node = value.producer()
            assert node is not None
            if node.op_type == "Concat":
                parts = [self._of(one, known) for one in node.inputs]
                made = [np.concatenate(parts, node.attributes.get_int("axis", 0))]
            else:
                made = _MOVES[node.op_type](node, self._of(node.inputs[0], known))
            known |= dict(zip(node.outputs, made, strict=True))
        return known[value]
