"""Activations that are written as several steps become one node each: SiLU, and GELU by tanh."""

from __future__ import annotations

import math

import onnx_ir as ir

from allmem_exporters.generic.passes.values import number, only_producer, only_use
from allmem_exporters.onnx.ir_utils import replace

_CLOSE = 1e-6
"""Relative difference of constants that are equal but for rounding."""


def activations_as_nodes(graph: ir.Graph) -> None:
    """Make one node of the steps of every activation that is known, in place."""
    for node in list(graph):
        if node.op_type == "Sigmoid":
            _silu(graph, node)
        elif node.op_type == "Tanh":
            _gelu(graph, node)


def _silu(graph: ir.Graph, sigmoid: ir.Node) -> None:
    """X · sigmoid(x)."""
    x, product = sigmoid.inputs[0], only_use(sigmoid.outputs[0], "Mul")
    if product is not None and x in product.inputs:
        silu = ir.node("QuickGelu", [x], {"alpha": 1.0}, domain="com.microsoft")
        replace(product, silu, graph)


def _gelu(graph: ir.Graph, tanh: ir.Node) -> None:
    """X / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))."""
    total = only_producer(_times(tanh.inputs[0], math.sqrt(2 / math.pi)), "Add")
    raised = only_use(tanh.outputs[0], "Add")
    product = only_use(raised.outputs[0], "Mul") if raised is not None else None
    if total is None or raised is None or product is None:
        return
    if not any(number(one) == 1.0 for one in raised.inputs):
        return
    for x, cubic in (total.inputs, total.inputs[::-1]):
        cube = only_producer(_times(cubic, 0.044715), "Pow")
        if cube is None or cube.inputs[0] is not x or number(cube.inputs[1]) != 3.0:
            continue
        if any(_times(one, 0.5) is x for one in product.inputs):
            replace(product, ir.node("Gelu", [x], {"approximate": "tanh"}), graph)
            return


def _times(value: ir.Value | None, factor: float) -> ir.Value | None:
    """What is multiplied by a factor to make a value; None if it is not made so."""
    product = only_producer(value, "Mul")
    for one, other in (product.inputs, product.inputs[::-1]) if product is not None else ():
        found = number(other)
        if found is not None and math.isclose(found, factor, rel_tol=_CLOSE):
            return one
    return None
