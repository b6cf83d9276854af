"""Matrices of a graph as QuantisedMatMul, our own product of integers for CPUs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from allmem_exporters.onnx.ir_utils import (
    bias_after,
    constant_of,
    register,
    replace,
    replace_product,
)
from allmem_exporters.onnx.quantized_matmul_function import product_function
from allmem_exporters.quantization.block_formats import AffineBlocks, quantize_blocks
from allmem_exporters.quantization.matmul_nbits import BLOCK
from allmem_ops.reference.product import TILE
from allmem_ops.schema import DOMAIN, QUANTIZED_MATMUL

_GROUP = 4
"""Numbers of an output that lie side by side; a byte each in tables, which have eight bits."""

_ROWS = ".rows"


def add_product_body(model: ir.Model) -> None:
    """Give a model the function body that stands in for QuantisedMatMul without our library."""
    body = ir.serde.deserialize_function(product_function())
    model.functions[body.identifier()] = body


def interleave_product(model: ir.Model, value: ir.Value, bits: int) -> None:
    """A product with ``value`` [inputs, outputs], and the sum with a bias, as one node."""
    name = str(value.name)
    blocks = quantize_blocks(np.ascontiguousarray(constant_of(value).T), bits, name)
    numbers, scales = _stored(model, name, blocks)
    for usage in list(value.uses()):
        node = usage.node
        total, bias = bias_after(node, len(blocks.numbers)) or (None, None)
        product = _product(node.inputs[0], blocks, numbers, scales, bias)
        replace_product(node, product, total, model.graph)
    model.graph.initializers.pop(name)


def interleave_table(model: ir.Model, value: ir.Value, bits: int) -> None:
    """An embedding, a head, or both in one [outputs, inputs]: one tensor serves both."""
    name = str(value.name)
    blocks = quantize_blocks(constant_of(value), bits, name)
    uses = [usage.node for usage in value.uses()]
    numbers, scales = _stored(
        model, name, blocks, only_looked_up=all(node.op_type == "Gather" for node in uses)
    )
    for node in uses:
        if node.op_type == "Gather":
            _look_up(model, node, blocks, numbers, scales)
        else:
            product = _product(node.inputs[0], blocks, numbers, scales, None)
            replace(node, product, model.graph)
    model.graph.initializers.pop(name)


def _stored(
    model: ir.Model, name: str, blocks: AffineBlocks, *, only_looked_up: bool = False
) -> tuple[ir.Value, ir.Value]:
    """Numbers and scales as initializers."""
    numbers, scales = blocks.stored_numbers(), blocks.stored_scales()
    if only_looked_up:
        numbers, scales = numbers.reshape(-1, _GROUP), scales.reshape(-1, 1)
    return register(model, f"{name}.numbers", numbers), register(model, f"{name}.scales", scales)


def _product(
    x: ir.Value | None,
    blocks: AffineBlocks,
    numbers: ir.Value,
    scales: ir.Value,
    bias: ir.Value | None,
) -> ir.Node:
    inputs = [x, numbers, scales] + ([] if bias is None else [bias])
    attributes = {"width": len(blocks.numbers), "bits": blocks.bits}
    return ir.node(QUANTIZED_MATMUL.name, inputs, attributes, domain=DOMAIN)


def _look_up(
    model: ir.Model, node: ir.Node, blocks: AffineBlocks, numbers: ir.Value, scales: ir.Value
) -> None:
    """Replace a Gather by look-ups of the groups and scales of a row, cut to the matrix's width.

    Row r of tile r / TILE has, in units of groups, the places (r / TILE) * groups * TILE + r % TILE
    + TILE * (0 … groups - 1), and its scales likewise. Views that have a group or a scale in a row
    are made by ``share_interleaved``.
    """
    count = blocks.numbers.shape[1]
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

    found = rows(numbers, count * BLOCK // _GROUP, "groups")
    shape = constant("blocks", np.array([0, 0, count, BLOCK], np.int64))
    middle = constant("middle", np.array([128.0], np.float32))
    wide = emit("Sub", emit("Reshape", found, shape), middle)
    scaled = emit("Mul", wide, rows(scales, count, "scales"))
    joined = ir.node("Reshape", [scaled, constant("joined", np.array([0, 0, -1], np.int64))])
    if blocks.columns % BLOCK == 0:
        replace(node, joined, model.graph)
        return
    joined.name = f"{node.name}.joined"
    joined.outputs[0].name = f"{joined.name}.out"
    node.prepend(joined)
    ends = [
        constant(what, np.array([at], np.int64))
        for what, at in (("first", 0), ("end", blocks.columns), ("axis", -1))
    ]
    replace(node, ir.node("Slice", [joined.outputs[0], *ends]), model.graph)


def share_interleaved(graph: onnx.GraphProto) -> None:
    """Give look-ups their view of a table that a product reads: see ``weights.share_tables``."""
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
            view.name = table.name + _ROWS
            inner = _GROUP if table.data_type == onnx.TensorProto.UINT8 else 1
            view.ClearField("dims")
            view.dims.extend([int(np.prod(table.dims)) // inner, inner])
            node.input[0] = view.name
