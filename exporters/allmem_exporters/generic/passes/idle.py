"""Takes out of a traced graph what does nothing, such as rotations by no angle."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from allmem_exporters.generic.passes.values import number, same_shape
from allmem_exporters.onnx.ir_utils import replace


def drop_idle(model: ir.Model) -> None:
    """Remove products with ones and sums with zeros, and reciprocals, in place."""
    zeros: set[ir.Value] = set()
    for node in list(model.graph):
        output = node.outputs[0] if node.outputs else None
        if node.op_type not in ("Mul", "Add") or output is None or output.is_graph_output():
            continue
        for kept, other in (node.inputs, node.inputs[::-1]):
            if kept is None or other is None or not same_shape(kept, output):
                continue
            found = number(other)
            if node.op_type == "Mul" and found == 0.0:
                zeros.add(output)
            elif (node.op_type == "Mul" and found == 1.0) or (
                node.op_type == "Add" and (found == 0.0 or other in zeros)
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
