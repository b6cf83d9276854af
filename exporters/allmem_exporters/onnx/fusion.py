"""What stands around a QuantisedMatMul becomes part of it: a Concat, a gate, a Split, views.

A node costs a step of one token some microseconds, whatever it does, and a layer has five of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from allmem_exporters.onnx.ir_utils import constant_of
from allmem_ops.products import QUANTIZED_MATMUL

_INPUTS = [tensor.name for tensor in QUANTIZED_MATMUL.inputs]
_X, _X_MORE = _INPUTS.index("x"), _INPUTS.index("x_more")


def absorb_neighbors(model: ir.Model) -> None:
    """Give every QuantisedMatMul of ``model`` the form that spares most nodes, in place."""
    graph = model.graph
    products = [node for node in graph if node.op_type == QUANTIZED_MATMUL.name]
    for product in products:
        _absorb_concat(graph, product)
        _absorb_gate(graph, product)
        _absorb_views(graph, product)
    for product in products:  # splits before a gate are gone by now
        _absorb_split(graph, product)


def _absorb_concat(graph: ir.Graph, product: ir.Node) -> None:
    concat = _only_producer(product.inputs[_X], "Concat")
    if concat is None or len(concat.inputs) != 2 or not _is_last(concat, concat.outputs[0]):
        return
    product.resize_inputs(len(_INPUTS))
    for index, part in zip((_X, _X_MORE), concat.inputs, strict=True):
        product.replace_input_with(index, part)
    graph.remove(concat, safe=True)


def _absorb_gate(graph: ir.Graph, product: ir.Node) -> None:
    """The product of silu(first half) and second half."""
    gated = _only_producer(product.inputs[_X], "Mul")
    if gated is None or len(product.inputs) > _X_MORE:
        return
    for active, up in (gated.inputs, gated.inputs[::-1]):
        silu = _only_producer(active, "QuickGelu")
        if silu is None or silu.attributes.get_float("alpha", 1.702) != 1.0 or up is None:
            continue
        gate = silu.inputs[0]
        split = _only_producer(gate, "Split")
        if split is None or list(split.outputs) != [gate, up] or len(up.uses()) != 1:
            continue
        widths = _widths(split)
        if widths is None or widths[0] != widths[1]:
            continue
        product.replace_input_with(_X, split.inputs[0])
        product.attributes.add(ir.AttrString("input_gate", "silu"))
        graph.remove([gated, silu, split], safe=True)
        return


def _absorb_views(graph: ir.Graph, product: ir.Node) -> None:
    """The Squeeze and the Unsqueeze of the first axis, which another product may need.

    Where the latter makes an output of the graph, ONNX Runtime copies it.
    """
    squeeze = _only_producer(product.inputs[_X], "Squeeze")
    uses = list(product.outputs[0].uses())
    if squeeze is None or len(uses) != 1 or uses[0].node.op_type != "Unsqueeze":
        return
    unsqueeze = uses[0].node
    axes = [node.inputs[1] for node in (squeeze, unsqueeze) if len(node.inputs) > 1]
    known = [axis for axis in axes if axis is not None and axis.const_value is not None]
    if [constant_of(axis).tolist() for axis in known] != [[0], [0]]:
        return
    product.replace_input_with(_X, squeeze.inputs[0])
    output, last = product.outputs[0], unsqueeze.outputs[0]
    output.type, output.shape, name = last.type, last.shape, last.name
    last.replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove([unsqueeze, squeeze], safe=True)
    output.name = name


def _absorb_split(graph: ir.Graph, product: ir.Node) -> None:
    whole = product.outputs[0]
    uses = list(whole.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Split" or len(uses[0].node.outputs) != 2:
        return
    split = uses[0].node
    widths = _widths(split)
    if widths is None:
        return
    product.resize_outputs(2)
    for output, part in zip(product.outputs, split.outputs, strict=True):
        output.type, output.shape = part.type, part.shape
        part.replace_all_uses_with(output, replace_graph_outputs=True)
    product.attributes.add(ir.AttrInt64("first_width", widths[0]))
    names = [part.name for part in split.outputs]
    graph.remove(split, safe=True)
    for output, name in zip(product.outputs, names, strict=True):
        output.name = name


def name_all_outputs(graph: onnx.GraphProto) -> None:
    """Let every QuantisedMatMul name both its outputs, in place: see ``product_function``."""
    for node in graph.node:
        if node.op_type == QUANTIZED_MATMUL.name:
            node.output.extend([""] * (len(QUANTIZED_MATMUL.outputs) - len(node.output)))


def _only_producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    """The node of this kind that makes ``value``, if nobody else reads that."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    return node if node is not None and node.op_type == kind else None


def _is_last(node: ir.Node, value: ir.Value) -> bool:
    """Whether the node works along the last axis of ``value``."""
    axis = node.attributes.get_int("axis", 0)
    return axis == -1 or (value.shape is not None and axis == len(value.shape) - 1)


def _widths(split: ir.Node) -> Sequence[int] | None:
    """Of the two parts; None if they are not two along the last axis, or nobody knows."""
    whole = split.inputs[0]
    if whole is None or len(split.outputs) != 2 or not _is_last(split, split.outputs[0]):
        return None
    sizes = split.inputs[1] if len(split.inputs) > 1 else None
    if sizes is not None:
        return constant_of(sizes).tolist() if sizes.const_value is not None else None
    width = whole.shape[-1] if whole.shape is not None else None
    return [-(-width // 2), width // 2] if isinstance(width, int) else None
