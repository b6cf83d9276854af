"""Norms as one node each, and the sum before a norm with it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from allmem_exporters.generic.passes.values import (
    along_last,
    constant,
    like,
    number,
    only_producer,
    only_use,
    same_shape,
    take_over,
    width,
)
from allmem_exporters.onnx.ir_utils import register, replace

_RMS, _CENTERED = "SimplifiedLayerNormalization", "LayerNormalization"


def norms_as_nodes(model: ir.Model) -> None:
    """Make one node of the steps of every RMSNorm, in place."""
    for node in list(model.graph):
        if node.op_type == "Div":
            _rms_norm(model, node)


def _rms_norm(model: ir.Model, quotient: ir.Node) -> None:
    """X / sqrt(mean(x²) + ε), and the product with a gain if there is one."""
    x, root = quotient.inputs[0], only_producer(quotient.inputs[1], "Sqrt")
    total = only_producer(root.inputs[0], "Add") if root is not None else None
    if x is None or total is None:
        return
    mean = only_producer(total.inputs[0], "ReduceMean")
    epsilon, size = number(total.inputs[1]), width(x)
    square = only_producer(mean.inputs[0], "Pow") if mean is not None else None
    if mean is None or square is None or epsilon is None or size is None:
        return
    axes = constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
    if square.inputs[0] is not x or number(square.inputs[1]) != 2.0:
        return
    if axes is None or axes.tolist() != [-1] or mean.attributes.get_int("keepdims", 1) != 1:
        return
    last, gain = _gain(quotient, size)
    if gain is None:
        gain = register(model, f"{quotient.outputs[0].name}.gain", np.ones(size, np.float32))
    norm = ir.node(_RMS, [x, gain], {"axis": -1, "epsilon": epsilon})
    replace(last, norm, model.graph)


def _gain(quotient: ir.Node, size: int) -> tuple[ir.Node, ir.Value | None]:
    """The last node of a norm, and the gain by which it multiplies."""
    product = only_use(quotient.outputs[0], "Mul")
    for given in product.inputs if product is not None else ():
        if given is not None and given.is_initializer() and given.shape == ir.Shape([size]):
            assert product is not None
            return product, given
    return quotient, None


def sums_into_norms(graph: ir.Graph) -> None:
    """Make one node of every norm and the sum of two streams that it reads, in place."""
    for norm in list(graph):
        if norm.op_type not in (_RMS, _CENTERED) or not along_last(norm, norm.inputs[0]):
            continue
        total = norm.inputs[0]
        added = total.producer() if total is not None else None
        if total is None or added is None or added.op_type != "Add":
            continue
        if not all(one is not None and same_shape(one, total) for one in added.inputs):
            continue
        if total.is_graph_output() or len(norm.outputs) > 1:
            continue
        kind = "Simplified" if norm.op_type == _RMS else ""
        skip = ir.node(
            f"Skip{kind}LayerNormalization",
            [*added.inputs, *norm.inputs[1:]],
            {"epsilon": norm.attributes.get_float("epsilon", 1e-5)},
            domain="com.microsoft",
            num_outputs=4,
        )
        added.append(skip)
        normed, *unread, again = skip.outputs
        for value, old in ((normed, norm.outputs[0]), (again, total)):
            take_over(like(value, old), old)
        for value in unread:
            value.name = ""
        graph.remove([norm, added], safe=False)
