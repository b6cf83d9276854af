"""Finds how many axes every value of a graph has, and refuses a graph where that is not told.

ONNX Runtime checks what it can tell when it opens a graph, and the rest in the kernels, where it
does not check all: a Concat of an empty tensor with one of another rank ends the process. So no
kernel gets a tensor whose number of axes was not known beforehand, and found right for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from allmem_ops.schema import DOMAIN, KNOWN, WHOLE_ATTENTION
from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.graph_nodes import MOST_AXES, Dims, Graph, Node, Parts, Tensor
from allmem_runtime.files.shape_call import Call, Shape, ShapeError
from allmem_runtime.files.shape_rules import RULES

_OURS = {**KNOWN, WHOLE_ATTENTION.name: WHOLE_ATTENTION}
"""With all inputs and outputs that there may be; a name stands for the same in each version."""


def check_shapes(parts: Parts, inputs: Mapping[str, Shape], path: Path) -> dict[str, Shape]:
    """Find the shapes of all values.

    Args:
        parts: the graph and its functions.
        inputs: shapes of the graph's inputs, as the runtime feeds them.
        path: the file, for messages.

    Returns:
        Those of its outputs, by name; a length that is not told is None.

    Raises:
        ModelFileError: a value's number of axes is not told, or a node does not go with it.
    """
    graph = parts.graph
    constants = {name for name, _ in graph.constants}
    for name in graph.inputs:
        if name not in inputs and name not in constants:
            raise ModelFileError(
                f"{path}: the input {name[:80]!r} is unknown to this runtime.",
                "Graph and manifest come from different exports: export the model again.",
            )
    shapes = _Shapes(parts, path)
    fed = {name: inputs[name] for name in graph.inputs if name in inputs}
    made = shapes.of_graph(graph, _Scope(dict(fed)))
    found = {}
    for name, shape in zip(graph.outputs, made, strict=True):
        if shape is None:
            shapes.fail(f"nothing makes its output {name[:80]!r}")
        found[name] = shape
    return found


@dataclass(slots=True)
class _Scope:
    """What is known where a node stands.

    Attributes:
        shapes: of values by name; None of one that nothing makes when it comes to that.
        lists: numbers in constants that are lists of a few integers.
        left_out: inputs of a function that its caller does not give.
        never: conditions that are false.
        dead: the nodes are never run.
    """

    shapes: dict[str, Shape | None]
    lists: dict[str, Dims] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    never: set[str] = field(default_factory=set)
    dead: bool = False

    def inside(self, *, dead: bool) -> _Scope:
        """That of a branch."""
        return replace(
            self,
            shapes=dict(self.shapes),
            lists=dict(self.lists),
            never=set(self.never),
            dead=self.dead or dead,
        )

    def shape(self, name: str) -> Shape | None:
        """Of a node's input."""
        if name not in self.shapes:
            raise ShapeError(f"reads {name[:80]!r} before anything makes it")
        return self.shapes[name]

    def hold(self, name: str, tensor: Tensor) -> None:
        """Add a constant."""
        self.define(name, tensor.dims)
        if tensor.numbers is not None:
            self.lists[name] = tensor.numbers

    def define(self, name: str, shape: Shape | None) -> None:
        """Add a value."""
        if name in self.shapes:
            raise ShapeError(f"makes the value {name[:80]!r} a second time")
        if shape is not None and len(shape) > MOST_AXES:
            raise ShapeError(f"makes a tensor of {len(shape)} axes")
        self.shapes[name] = shape


class _Shapes:
    def __init__(self, parts: Parts, path: Path) -> None:
        self.parts = parts
        self.path = path
        self.called: dict[tuple[object, ...], list[Shape | None]] = {}

    def fail(self, what: str) -> NoReturn:
        raise ModelFileError(
            f"{self.path}: {what}.", "Open only models that `allmem export` wrote."
        )

    def of_graph(self, graph: Graph, scope: _Scope) -> list[Shape | None]:
        """The shapes of a graph's outputs; all its values are added to what is known."""
        try:
            for name, tensor in graph.constants:
                scope.hold(name, tensor)
        except ShapeError as error:
            self.fail(f"its constants: one {error}")
        for node in graph.nodes:
            try:
                made = self.of_node(node, scope)
                for name, shape in zip(node.outputs, made, strict=False):
                    if name:
                        scope.define(name, shape)
            except ShapeError as error:
                where = f"a node of the operator {node.operator!r} of the domain {node.domain!r}"
                self.fail(f"{where} {error}, as none of an export")
        for name in graph.outputs:
            if name not in scope.shapes:
                self.fail(f"nothing makes its output {name[:80]!r}")
        return [scope.shapes[name] for name in graph.outputs]

    def of_node(self, node: Node, scope: _Scope) -> list[Shape | None]:
        given = [scope.shape(name) if name else None for name in node.inputs]
        if node.operator == "If":
            return self.of_branches(node, scope)
        if node.domain == DOMAIN:
            return self.of_ours(node, given)
        if node.operator == "Constant":
            scope.hold(node.outputs[0], _constant(node))
            return []
        if node.operator == "OptionalHasElement" and given == [None]:
            scope.never.update(node.outputs)
        elif scope.dead and None in given:
            if node.operator != "Concat" and not scope.left_out.isdisjoint(node.inputs):
                raise ShapeError("lacks an input")
            return [None] * len(node.outputs)
        lists = [scope.lists.get(name) for name in node.inputs]
        return list(RULES[node.operator](Call(node, given, lists)))

    def of_branches(self, node: Node, scope: _Scope) -> list[Shape | None]:
        """What an If makes; a branch that is not run is looked at, as ONNX Runtime folds it."""
        if node.branches.keys() != {"then_branch", "else_branch"}:
            raise ShapeError("lacks a branch")
        never = node.inputs[0] in scope.never
        then = self.of_graph(node.branches["then_branch"], scope.inside(dead=never))
        other = self.of_graph(node.branches["else_branch"], scope.inside(dead=False))
        if len(then) != len(other):
            raise ShapeError("makes another number of tensors in each of its branches")
        return other if never else list(map(_either, then, other))

    def of_ours(self, node: Node, given: list[Shape | None]) -> list[Shape | None]:
        """What our kernel makes, which checks its inputs itself, and the node's function too."""
        operator = _OURS[node.operator]
        by_name = dict(zip((tensor.name for tensor in operator.inputs), given, strict=False))
        made: list[Shape | None] = []
        for tensor in operator.outputs[: len(node.outputs)]:
            renews = tensor.name.startswith("present_")
            state = tensor.name.replace("present_", "past_")
            like = by_name.get(state if renews else operator.inputs[0].name)
            made.append(None if like is None else (None,) * len(like))
        for name, kernel, function in zip(
            node.outputs, made, self.of_function(node, given), strict=False
        ):
            if name and (kernel is None or function is None or len(kernel) != len(function)):
                raise ShapeError(f"makes {name[:80]!r} otherwise than its function")
        return made

    def of_function(self, node: Node, given: list[Shape | None]) -> list[Shape | None]:
        """What the function makes that stands for a node; as our kernel does if there is none."""
        body = self.parts.functions.get((node.operator, node.overload))
        if body is None:
            return []
        key = (node.operator, node.overload, tuple(given))
        if key not in self.called:
            shapes = dict.fromkeys(body.inputs) | dict(zip(body.inputs, given, strict=False))
            left_out = frozenset(name for name, shape in shapes.items() if shape is None)
            self.called[key] = self.of_graph(body, _Scope(shapes, left_out=left_out))
        return self.called[key]


def _constant(node: Node) -> Tensor:
    """A tensor, a list of numbers, or one value."""
    value, listed = node.numbers.get("value"), node.numbers.get("value_ints")
    if isinstance(value, Tensor):
        return value
    if isinstance(listed, tuple):
        return Tensor((len(listed),), listed if len(listed) <= MOST_AXES else None)
    return Tensor(())


def _either(one: Shape | None, other: Shape | None) -> Shape | None:
    if one is None or other is None:
        return None
    if len(one) != len(other):
        raise ShapeError("makes tensors of other ranks in each of its branches")
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))
