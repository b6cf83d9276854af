"""Look-ups of rows in a table that lies interleaved, as QuantisedMatMul reads it, in eight bits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from allmem_exporters.onnx.ir_utils import register, replace
from allmem_exporters.quantization.blocks import BLOCK, block_count
from allmem_exporters.quantization.stored_format import ROWS_VIEW, StoredMatrix
from allmem_ops.products import QUANTIZED_MATMUL
from allmem_ops.reference.product import TILE

GROUP = 4
"""Numbers of an output that lie side by side; a byte each in tables, which have eight bits."""


def look_up(
    model: ir.Model, node: ir.Node, stored: StoredMatrix, numbers: ir.Value, scales: ir.Value
) -> None:
    """Replace a Gather by look-ups of the groups and scales of a row, cut to the matrix's width.

    Row r of tile r / TILE has, in units of groups, the places (r / TILE) * groups * TILE + r % TILE
    + TILE * (0 … groups - 1), and its scales likewise. Views that have a group or a scale in a row
    are made by ``share_views``.
    """
    count = block_count(stored.columns)
    created: list[ir.Node] = []

    def constant(what: str, array: NDArray[np.generic]) -> ir.Value:
        return register(model, f"{node.name}.{what}", array)

    def emit(kind: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        made = ir.node(kind, list(inputs), attributes)
        made.name = f"{node.name}.{kind}.{len(created)}"
        made.outputs[0].name = f"{made.name}.out"
        node.prepend(made)
        created.append(made)
        return made.outputs[0]

    tile = constant("tile", np.array([TILE], np.int64))
    ids = emit("Unsqueeze", node.inputs[1], constant("last", np.array([-1], np.int64)))
    lane, which = emit("Mod", ids, tile), emit("Div", ids, tile)

    def rows(view: ir.Value, groups: int, what: str) -> ir.Value:
        step = constant(f"{what}.step", np.array([groups * TILE], np.int64))
        places = constant(f"{what}.places", np.arange(groups, dtype=np.int64) * TILE)
        base = emit("Add", emit("Mul", which, step), lane)
        found = emit("Gather", view, emit("Add", base, places), axis=0)
        return emit("Cast", found, to=int(ir.DataType.FLOAT))

    found = rows(numbers, count * BLOCK // GROUP, "groups")
    shape = constant("blocks", np.array([0, 0, count, BLOCK], np.int64))
    middle = constant("middle", np.array([128.0], np.float32))
    wide = emit("Sub", emit("Reshape", found, shape), middle)
    scaled = emit("Mul", wide, rows(scales, count, "scales"))
    joined = ir.node("Reshape", [scaled, constant("joined", np.array([0, 0, -1], np.int64))])
    if stored.columns % BLOCK == 0:
        replace(node, joined, model.graph)
        return
    joined.name = f"{node.name}.joined"
    joined.outputs[0].name = f"{joined.name}.out"
    node.prepend(joined)
    ends = [
        constant(what, np.array([at], np.int64))
        for what, at in (("first", 0), ("end", stored.columns), ("axis", -1))
    ]
    replace(node, ir.node("Slice", [joined.outputs[0], *ends]), model.graph)


def share_views(graph: onnx.GraphProto) -> None:
    """Give look-ups their two-dimensional view of a table that a product reads in tiles.

    The view is an initializer of another shape over the same bytes of the weights file, where both
    are mapped from: nothing is stored twice.

    Args:
        graph: with its weights in a file beside it.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tables = {
        name
        for node in graph.node
        if node.op_type == QUANTIZED_MATMUL.name
        for name in node.input[1:3]
    }
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            table, view = tensors[node.input[0]], graph.initializer.add()
            view.CopyFrom(table)
            view.name = table.name + ROWS_VIEW
            inner = GROUP if table.data_type == onnx.TensorProto.UINT8 else 1
            view.ClearField("dims")
            view.dims.extend([int(np.prod(table.dims)) // inner, inner])
            node.input[0] = view.name
