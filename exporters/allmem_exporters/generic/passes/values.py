"""What the passes ask of values and nodes of a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_SPREADING = ("Unsqueeze", "Squeeze", "Reshape", "Expand", "Slice", "Cast", "Tile", "Transpose")
"""Operators that make a tensor of one number of another such, whatever their other inputs."""
_MOST = 1 << 16
"""Values of a constant that is looked at."""


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The values of a constant; None of what is none, or has many."""
    if value is None or value.is_graph_input():
        return None
    tensor, node = value.const_value, value.producer()
    if tensor is None and node is not None and "value" in node.attributes:
        tensor = node.attributes["value"].as_tensor()  # of a Constant
    return tensor.numpy() if tensor is not None and 0 < tensor.size <= _MOST else None


def number(value: ir.Value | None) -> float | None:
    """The one number that a constant of floats consists of; None if there is no such."""
    if value is None:
        return None
    node = value.producer()
    if value.const_value is None and node is not None and node.op_type in _SPREADING:
        return number(node.inputs[0])
    array = constant(value)
    if array is None or not np.issubdtype(array.dtype, np.floating):
        return None
    return float(array.flat[0]) if (array == array.flat[0]).all() else None


def same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values are known to have the same shape."""
    if one.shape is None or other.shape is None:
        return False
    return one.shape == other.shape and not any(
        isinstance(size, ir.SymbolicDim) and size.value is None for size in one.shape
    )


def width(value: ir.Value) -> int | None:
    """Size of the last axis, if it is known."""
    last = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return last if isinstance(last, int) else None


def only_use(value: ir.Value, kind: str) -> ir.Node | None:
    """The node of a kind that reads a value, if nothing else does."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != kind:
        return None
    return uses[0].node


def only_producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    """The node of a kind that makes a value, if one other reads it and no more."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    return node if node is not None and node.op_type == kind else None


def along_last(node: ir.Node, value: ir.Value | None) -> bool:
    """Whether a node works along the last axis of a value."""
    axis = node.attributes.get_int("axis", 0)
    known = value is not None and value.shape is not None
    return axis == -1 or (known and axis == len(value.shape) - 1)  # type: ignore[union-attr,arg-type]


def like(value: ir.Value, other: ir.Value, last: int | None = None) -> ir.Value:
    """Give a value the type and shape of another one, but for the size of the last axis."""
    value.type = other.type
    value.shape = None if other.shape is None else ir.Shape(list(other.shape))
    if value.shape is not None and last is not None:
        value.shape[-1] = last
    return value


def take_over(value: ir.Value, old: ir.Value) -> None:
    """Let a value be read wherever another one was, under its name."""
    name = old.name
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    old.name, value.name = f"{name}.before", name
