"""Takes out of a traced graph what does nothing, such as rotations by no angle."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from allmem_exporters.onnx.ir_utils import replace

_SPREADING = ("Unsqueeze", "Squeeze", "Reshape", "Expand", "Slice", "Cast", "Tile", "Transpose")
"""Operators that make a tensor of one number of another such, whatever their other inputs."""
_MOST = 1 << 16
"""Values of a constant that is looked at."""


def drop_idle(model: ir.Model) -> None:
    """Remove products with ones and sums with zeros, and reciprocals, in place."""
    zeros: set[ir.Value] = set()
    for node in list(model.graph):
        output = node.outputs[0] if node.outputs else None
        if node.op_type not in ("Mul", "Add") or output is None or output.is_graph_output():
            continue
        for kept, other in (node.inputs, node.inputs[::-1]):
            if kept is None or other is None or not _same_shape(kept, output):
                continue
            number = _number(other)
            if node.op_type == "Mul" and number == 0.0:
                zeros.add(output)
            elif (node.op_type == "Mul" and number == 1.0) or (
                node.op_type == "Add" and (number == 0.0 or other in zeros)
            ):
                output.replace_all_uses_with(kept)
                break
    for node in list(model.graph):
        if node.op_type == "Reciprocal":
            _divide(model.graph, node)
    RemoveUnusedNodesPass()(model)


def _divide(graph: ir.Graph, reciprocal: ir.Node) -> None:
    """Let products with a reciprocal be quotients, as ONNX Runtime knows an RMSNorm by them."""
    for usage in list(reciprocal.outputs[0].uses()):
        if usage.node.op_type == "Mul":
            other = usage.node.inputs[1 - usage.idx]
            replace(usage.node, ir.node("Div", [other, reciprocal.inputs[0]]), graph)


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    return one.shape is not None and one.shape == other.shape


def _number(value: ir.Value) -> float | None:
    """The one number that a constant consists of; None if there is no such."""
    tensor, node = value.const_value, value.producer()
    if tensor is None and node is not None:
        if node.op_type in _SPREADING and node.inputs[0] is not None:
            return _number(node.inputs[0])
        if node.op_type == "Constant" and "value" in node.attributes:
            tensor = node.attributes["value"].as_tensor()
    if tensor is None or not 0 < tensor.size <= _MOST or value.is_graph_input():
        return None
    array = tensor.numpy()
    if not np.issubdtype(array.dtype, np.floating) or not (array == array.flat[0]).all():
        return None
    return float(array.flat[0])
