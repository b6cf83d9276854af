"""A small builder of ONNX model-local functions: values with operators, nodes in order.

It knows nothing of attention or memory; it exists so that the bodies read like their equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from allmem_ops.contract import Operator
from allmem_ops.schema import DOMAIN

OPSET = 20
"""Standard opset of the bodies: what they use is unchanged up to what ONNX Runtime loads."""


class Value:
    """The name of a tensor in a body; arithmetic on it adds nodes."""

    def __init__(self, body: Body, name: str) -> None:
        self.body = body
        self.name = name

    def __add__(self, other: Value) -> Value:
        return self.body.node("Add", self, other)

    def __sub__(self, other: Value) -> Value:
        return self.body.node("Sub", self, other)

    def __mul__(self, other: Value) -> Value:
        return self.body.node("Mul", self, other)

    def __truediv__(self, other: Value) -> Value:
        return self.body.node("Div", self, other)

    def __matmul__(self, other: Value) -> Value:
        return self.body.node("MatMul", self, other)

    def __mod__(self, other: Value) -> Value:
        return self.body.node("Mod", self, other)

    def __ge__(self, other: Value) -> Value:
        return self.body.node("GreaterOrEqual", self, other)

    def __gt__(self, other: Value) -> Value:
        return self.body.node("Greater", self, other)

    def __lt__(self, other: Value) -> Value:
        return self.body.node("Less", self, other)

    def __le__(self, other: Value) -> Value:
        return self.body.node("LessOrEqual", self, other)

    def __and__(self, other: Value) -> Value:
        return self.body.node("And", self, other)

    def __or__(self, other: Value) -> Value:
        return self.body.node("Or", self, other)

    def __neg__(self) -> Value:
        return self.body.node("Neg", self)

    def equals(self, other: Value) -> Value:
        """Elementwise comparison."""
        return self.body.node("Equal", self, other)

    def cast(self, element: str) -> Value:
        """To another element type, by its NumPy name."""
        return self.body.node("Cast", self, to=helper.np_dtype_to_tensor_dtype(np.dtype(element)))

    def reshape(self, *shape: int) -> Value:
        """0 keeps a dimension, -1 takes what is left."""
        return self.body.node("Reshape", self, self.body.integers(*shape))

    def transpose(self, *permutation: int) -> Value:
        """Axes in a new order."""
        return self.body.node("Transpose", self, perm=list(permutation))

    def slice(self, axis: int, start: Value, stop: Value) -> Value:
        """Rows start to stop of one axis; both are [1] int64."""
        return self.body.node("Slice", self, start, stop, self.body.integers(axis))

    def take(self, indices: Value, axis: int) -> Value:
        """Rows by index."""
        return self.body.node("Gather", self, indices, axis=axis)

    def split(self, axis: int, *sizes: int) -> list[Value]:
        """Parts of the given sizes."""
        return self.body.nodes("Split", len(sizes), self, self.body.integers(*sizes), axis=axis)

    def unsqueeze(self, *axes: int) -> Value:
        """Insert dimensions of size 1."""
        return self.body.node("Unsqueeze", self, self.body.integers(*axes))

    def squeeze(self, *axes: int) -> Value:
        """Remove dimensions of size 1."""
        return self.body.node("Squeeze", self, self.body.integers(*axes))

    def sum(self, axis: int, *, keep: bool = True) -> Value:
        """Sum over one axis."""
        return self.body.node("ReduceSum", self, self.body.integers(axis), keepdims=int(keep))

    def mean(self, axis: int) -> Value:
        """Mean over one axis, kept as size 1."""
        return self.body.node("ReduceMean", self, self.body.integers(axis), keepdims=1)

    def size(self, axis: int) -> Value:
        """The size of one axis, [1] int64."""
        return self.body.node("Shape", self, start=axis, end=axis + 1)


class Body:
    """Collects the nodes of one function.

    Args:
        name: the operator's name.
        domain: its domain.
        inputs: names of its inputs.
        outputs: names of its outputs.
        attributes: names of its attributes; the body's sizes are baked in, so it reads none.
    """

    def __init__(
        self,
        name: str,
        domain: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Sequence[str],
    ) -> None:
        self._name, self._domain = name, domain
        self._inputs, self._outputs, self._attributes = inputs, outputs, attributes
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[Any, ...], Value] = {}

    def input(self, name: str) -> Value:
        """An input of the function."""
        if name not in self._inputs:
            raise KeyError(name)
        return Value(self, name)

    def nodes(self, kind: str, count: int, *inputs: Value, **attributes: Any) -> list[Value]:
        """Add a node with ``count`` outputs."""
        names = [f"{kind.lower()}_{len(self._nodes)}_{i}" for i in range(count)]
        self._nodes.append(
            helper.make_node(kind, [value.name for value in inputs], names, **attributes)
        )
        return [Value(self, name) for name in names]

    def node(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """Add a node with one output."""
        return self.nodes(kind, 1, *inputs, **attributes)[0]

    def constant(self, array: np.ndarray) -> Value:
        """A constant tensor; equal ones are shared."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            tensor = numpy_helper.from_array(array)
            self._constants[key] = self.node("Constant", value=tensor)
        return self._constants[key]

    def integers(self, *values: int) -> Value:
        """A constant [n] int64."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, element: str = "float32") -> Value:
        """A constant scalar."""
        return self.constant(np.array(value, element))

    def concat(self, axis: int, *parts: Value) -> Value:
        """Join along one axis."""
        return self.node("Concat", *parts, axis=axis)

    def where(self, condition: Value, yes: Value, no: Value) -> Value:
        """Elementwise choice."""
        return self.node("Where", condition, yes, no)

    def sigmoid(self, x: Value) -> Value:
        """Logistic function."""
        return self.node("Sigmoid", x)

    def silu(self, x: Value) -> Value:
        """X * sigmoid(x)."""
        return x * self.sigmoid(x)

    def arange(self, count: Value) -> Value:
        """0 … count - 1, int64; ``count`` is [1] int64."""
        zero, one = self.number(0, "int64"), self.number(1, "int64")
        return self.node("Range", zero, count.squeeze(0), one)

    def finish(self, *results: Value) -> onnx.FunctionProto:
        """The function; ``results`` become its outputs in their order."""
        for result, output in zip(results, self._outputs, strict=True):
            self._nodes.append(helper.make_node("Identity", [result.name], [output]))
        return helper.make_function(
            self._domain,
            self._name,
            list(self._inputs),
            list(self._outputs),
            self._nodes,
            [helper.make_opsetid("", OPSET)],
            list(self._attributes),
        )


Attributes = dict[str, Any]


def operator_body(operator: Operator, without: Sequence[str] = ()) -> Body:
    """An empty body with the inputs, outputs and attributes of an operator.

    Args:
        operator: of the operator table.
        without: attributes that no node has.
    """
    return Body(
        operator.name,
        DOMAIN,
        [tensor.name for tensor in operator.inputs],
        [tensor.name for tensor in operator.outputs],
        [attribute.name for attribute in operator.attributes if attribute.name not in without],
    )
