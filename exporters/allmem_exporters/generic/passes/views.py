"""Takes out what moves numbers and moves them back: transposes, reshapes, slices and joins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from allmem_exporters.generic.passes.movement import Movement, NotMoved
from allmem_exporters.generic.passes.values import along_last, like, same_shape, width
from allmem_exporters.onnx.ir_utils import register

_ROWWISE = ("SimplifiedLayerNormalization", "LayerNormalization", "Gather")
"""Operators that may work along the last axis, whatever the others mean."""
_TIME = 3
"""Tokens of the piece for which it is looked at what moves."""


def drop_views(graph: ir.Graph) -> None:
    """Let what reads a transposed or reshaped value read what that was made of, in place."""
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        before = source.producer() if source is not None else None
        if node.op_type == "Transpose" and before is not None and before.op_type == "Transpose":
            order = [_order(before)[axis] for axis in _order(node)]
            if order == list(range(len(order))):
                _skip(node, before.inputs[0])
        elif node.op_type == "Reshape" and source is not None:
            while source is not None and not same_shape(source, node.outputs[0]):
                made = source.producer()
                source = made.inputs[0] if made is not None and made.op_type == "Reshape" else None
            _skip(node, source)
        elif node.op_type == "Concat":
            _join_slices(node)
    for node in list(graph):
        if node.op_type in _ROWWISE:
            _before_transposes(node)


def _order(transpose: ir.Node) -> Sequence[int]:
    return transpose.attributes.get_ints("perm", ())


def _skip(node: ir.Node, source: ir.Value | None) -> None:
    if source is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(source)


def _before_transposes(node: ir.Node) -> None:
    """Let what works along the last axis do so before a Transpose that is undone behind it."""
    before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    output = node.outputs[0]
    if before is None or before.op_type != "Transpose" or not along_last(node, node.inputs[0]):
        return
    after = [use.node for use in output.uses()]
    order = _order(before)
    back = [order.index(axis) for axis in range(len(order))]
    source = before.inputs[0]
    if not after or source is None or order[-1] != len(order) - 1 or output.is_graph_output():
        return
    if any(one.op_type != "Transpose" or list(_order(one)) != back for one in after):
        return
    node.replace_input_with(0, source)
    if node.op_type == "Gather":
        node.attributes["axis"] = ir.AttrInt64("axis", len(order) - 1)
    like(output, source, width(output))
    for one in after:
        _skip(one, output)


def _join_slices(concat: ir.Node) -> None:
    """Skip a Concat of parts that are all of what they are cut from, one after the other."""
    part = concat.inputs[0].producer() if concat.inputs[0] is not None else None
    whole = part.inputs[0] if part is not None and part.op_type in ("Slice", "Split") else None
    if whole is None or whole.shape is None or not same_shape(whole, concat.outputs[0]):
        return
    sizes = tuple(size if isinstance(size, int) else _TIME for size in whole.shape)
    try:
        moved = Movement(concat.outputs[0], whole)
        places = moved.places(sizes)
    except NotMoved:
        return
    if moved.source is whole and (places.reshape(-1) == np.arange(places.size)).all():
        _skip(concat, whole)


def split_node(
    model: ir.Model, whole: ir.Value, widths: Sequence[int], named_after: ir.Value
) -> ir.Node:
    """A Split along the last axis.

    Args:
        model: gets the sizes as an initializer.
        whole: what is split.
        widths: of the parts.
        named_after: gives the initializer its name.
    """
    sizes = register(model, f"{named_after.name}.widths", np.array(widths, np.int64))
    return ir.node("Split", [whole, sizes], {"axis": -1}, num_outputs=len(widths))
