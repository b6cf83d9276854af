"""A traced decoder made deeper: one of its layers is copied as often as the model has layers.

Layers of a decoder are alike but for their numbers, in what they read as in every name. So four
traced layers tell how all others look: the second and the third show which numbers in a name grow
from layer to layer, and by how much; copies of the third follow it, and the fourth becomes the
last. The graph is the one that tracing all layers gives, in a time that does not grow with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import onnx_ir as ir

from allmem_exporters.onnx.ir_utils import RESIDUAL_SUMS

TRACED = 4
"""Layers that are traced of a deeper model."""

_COPIED = 2
"""Index of the traced layer that is copied."""
_NUMBER = re.compile(r"\d+")

Copies = dict[ir.Value, list[ir.Value]]
"""Of each value of the copied layer: what it is in that layer and in each copy, one by one."""


def deepen(model: ir.Model, layers: int) -> None:
    """Make a graph of ``TRACED`` layers one of ``layers``, in place.

    Args:
        model: traced with parameters that are all different, so that none serves two layers.
        layers: at least ``TRACED``.
    """
    graph, more = model.graph, layers - TRACED
    parts = _parts(graph)
    before, copied, last, tail = parts[_COPIED : _COPIED + 4]
    numbers = _Numbers(before, copied)
    initializers = list(graph.initializers.values())
    graph.initializers.clear()  # they keep their order, which renaming would change
    _count_on(numbers, [*last, *tail], [*_own(copied, last), *_only_read_by(tail)], more)
    copies = {value: [value] for value in (*_own(before, copied), *_outputs(copied))}
    ends = dict(zip(_outputs(before), _outputs(copied), strict=True))
    for step in range(1, more + 1):
        for value, made in copies.items():
            made.append(_copy(value, numbers.after(value.name, step)))
        nodes = [_copy_of_node(node, copies, ends, numbers, step) for node in copied]
        graph.insert_before(last[0], nodes)
    for node in last:
        for index, read in enumerate(node.inputs):
            if read in copies:
                node.replace_input_with(index, copies[read][-1])
    for values in (graph.inputs, graph.outputs):
        values[:] = list(_with_copies(values, copies))
    for value in _with_copies(initializers, copies):
        graph.register_initializer(value)


class _Numbers:
    """How the numbers in names grow from one layer to the next.

    Args:
        before: nodes of a layer.
        after: nodes of the following layer.
    """

    def __init__(self, before: Sequence[ir.Node], after: Sequence[ir.Node]) -> None:
        self._growth: dict[str, list[int]] = {}
        for one, next_one in zip(before, after, strict=True):
            assert (one.op_type, len(one.inputs)) == (next_one.op_type, len(next_one.inputs))
            pairs = [(one.name, next_one.name)]
            values = ((*one.inputs, *one.outputs), (*next_one.inputs, *next_one.outputs))
            pairs += [(a.name, b.name) for a, b in zip(*values, strict=True) if a and b]
            for first, second in pairs:
                if first and second and first != second:
                    self._growth[_NUMBER.sub("#", first)] = [
                        int(b) - int(a)
                        for a, b in zip(_numbers(first), _numbers(second), strict=True)
                    ]

    def after(self, name: str | None, layers: int) -> str | None:
        """The name that stands in the place of this one some layers later."""
        growth = self._growth.get(_NUMBER.sub("#", name or ""))
        if name is None or growth is None:
            return name
        each = iter(growth)
        return _NUMBER.sub(lambda found: str(int(found[0]) + layers * next(each)), name)


def _numbers(name: str) -> list[str]:
    return _NUMBER.findall(name)


def _parts(graph: ir.Graph) -> list[list[ir.Node]]:
    """The nodes before the first layer, those of each layer, and those after the last.

    A layer ends with its second residual sum, which is one node with the norm that follows. There
    may be one more before the first layer, of the embedding alone.
    """
    sums = [node for node in graph if node.op_type in RESIDUAL_SUMS]
    ahead = len(sums) % 2
    stream = sums[0].inputs[1]
    assert stream is not None
    ends = {sums[0] if ahead else stream.producer(), *sums[ahead + 1 :: 2]}
    parts: list[list[ir.Node]] = [[]]
    for node in graph:
        parts[-1].append(node)
        if node in ends:
            parts.append([])
    assert len(parts) == TRACED + 2, f"{len(parts) - 2} layers instead of {TRACED}"
    return parts


def _outputs(nodes: Iterable[ir.Node]) -> Iterator[ir.Value]:
    return (value for node in nodes for value in node.outputs)


def _own(before: Sequence[ir.Node], layer: Sequence[ir.Node]) -> list[ir.Value]:
    """Inputs and initializers that a layer reads where the layer before it reads others."""
    found: dict[ir.Value, None] = {}
    for one, other in zip(before, layer, strict=True):
        for earlier, value in zip(one.inputs, other.inputs, strict=True):
            if value is not None and value is not earlier and value.producer() is None:
                found[value] = None
    return list(found)


def _only_read_by(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """Inputs and initializers that no other nodes read."""
    read = {value: None for node in nodes for value in node.inputs if value is not None}
    here = set(nodes)
    return [v for v in read if v.producer() is None and here.issuperset(v.consumers())]


def _count_on(
    numbers: _Numbers, nodes: Iterable[ir.Node], values: Iterable[ir.Value], layers: int
) -> None:
    """Rename what stands behind the copied layers, the highest numbers first."""
    nodes, values = list(nodes), list(values)
    for node in nodes:
        node.name = numbers.after(node.name, layers)
    for value in [*values, *_outputs(nodes)]:
        value.name = numbers.after(value.name, layers)


def _copy(value: ir.Value, name: str | None) -> ir.Value:
    shape = None if value.shape is None else value.shape.copy()
    return ir.Value(name=name, type=value.type, shape=shape, const_value=value.const_value)


def _copy_of_node(
    node: ir.Node, copies: Copies, ends: Mapping[ir.Value, ir.Value], numbers: _Numbers, step: int
) -> ir.Node:
    """A node of the copied layer in its copy number ``step``."""

    def read(value: ir.Value | None) -> ir.Value | None:
        if value is not None and value in ends:  # made by the layer before, so by the copy before
            return copies[ends[value]][step - 1]
        return copies[value][step] if value in copies else value

    return ir.Node(
        node.domain,
        node.op_type,
        [read(value) for value in node.inputs],
        list(node.attributes.values()),
        outputs=[copies[value][step] for value in node.outputs],
        version=node.version,
        name=numbers.after(node.name, step),
    )


def _with_copies(values: Iterable[ir.Value], copies: Copies) -> Iterator[ir.Value]:
    """Values in their order; where some of the copied layer stand, their copies follow."""
    for copied, run in groupby(list(values), copies.__contains__):
        here = list(run)
        if not copied:
            yield from here
        else:
            for step in range(len(copies[here[0]])):
                yield from (copies[value][step] for value in here)
