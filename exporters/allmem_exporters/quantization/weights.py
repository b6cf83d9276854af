"""How weights of float32 graphs are stored: float32, float16, or integers in blocks.

Only matrices of products and embeddings change; norms, the control product (learning rates,
momentum, gates), taps and initial fast weights stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from allmem_exporters.errors import ExportError
from allmem_exporters.onnx.fusion import absorb_neighbors
from allmem_exporters.onnx.ir_utils import (
    bias_after,
    constant_of,
    register,
    replace,
    replace_product,
)
from allmem_exporters.quantization.matmul_nbits import BITS, BLOCK, Blocks, block_sums, quantize
from allmem_exporters.quantization.quantized_matmul import (
    add_product_body,
    interleave_product,
    interleave_table,
    share_interleaved,
)

STORAGE = ("float32", "float16", "int8", "int4")

TABLE_BITS = 8
"""Of embedding and head, in int4 too: the head is the product that four bits harm most."""

ACCURACY_LEVEL = 4
"""Of MatMulNBits: its inputs are rounded to eight bits, in blocks as the weights are."""

_DOMAIN = "com.microsoft"
_ROWS = ".rows"

PRODUCTS = ("allmem", "onnxruntime")
"""Who multiplies integers: our QuantisedMatMul on CPUs, or MatMulNBits of ONNX Runtime."""


def chosen_products(storage: str, products: str | None) -> str | None:
    """Who multiplies: what was asked for, or our own; None where no integers are stored.

    Raises:
        ExportError: it is nobody, or there are no integers to multiply.
    """
    if products is not None and products not in PRODUCTS:
        raise ExportError(f"matmul_kernel is {products!r}; allowed: {', '.join(PRODUCTS)}.")
    if storage in BITS:
        return products or PRODUCTS[0]
    if products is not None:
        raise ExportError(
            f"matmul_kernel is {products!r}, and weights stored as {storage} are not multiplied in "
            "integers.",
            "Leave --matmul-kernel out, or export with --weights int8 or int4.",
        )
    return None


def store(model: ir.Model, storage: str, products: str | None = None) -> None:
    """Change how the matrices of ``model`` are stored, in place.

    The arithmetic around them stays float32. Float16 is widened when the model is loaded; whole
    numbers are multiplied as they are, with inputs rounded to eight bits.

    Args:
        model: as `trace` returns it.
        storage: one of ``STORAGE``.
        products: one of ``PRODUCTS`` for integers, the first of them if None.

    Raises:
        ExportError: an unknown storage, or a weight that it cannot hold.
    """
    if storage not in STORAGE:
        raise ExportError(f"weights is {storage!r}; allowed: {', '.join(STORAGE)}.")
    products = chosen_products(storage, products)
    if storage == "float32":
        return
    for value in list(model.graph.initializers.values()):
        if not _is_matrix(value):
            continue
        table = any(usage.node.op_type != "MatMul" for usage in value.uses())
        if storage == "float16":
            _narrow(model, value)
        elif products == "allmem" and table:
            interleave_table(model, value, TABLE_BITS)
        elif products == "allmem":
            interleave_product(model, value, BITS[storage])
        elif table:
            _quantize_table(model, value)
        else:
            _quantize_product(model, value, BITS[storage])
    if products == "allmem":
        absorb_neighbors(model)
        add_product_body(model)


def _is_matrix(value: ir.Value) -> bool:
    """Whether nothing but products and look-ups reads this initializer, and not the control's."""
    users = [(usage.node, usage.idx) for usage in value.uses()]
    matrix = [
        (node, index)
        for node, index in users
        if (node.op_type in ("MatMul", "Gemm") and index == 1)
        or (node.op_type == "Gather" and index == 0)
    ]
    exact = ".control." in str(value.name)
    same = bool(users) and len(matrix) == len(users)
    return same and not exact and value.dtype == ir.DataType.FLOAT


def _register_blocks(model: ir.Model, name: str, blocks: Blocks) -> list[ir.Value | None]:
    """Numbers, scales and zero points (None without) as initializers."""
    zeros = blocks.packed_zeros()
    return [
        register(model, f"{name}.numbers", blocks.packed()),
        register(model, f"{name}.scales", blocks.scales),
        None if zeros is None else register(model, f"{name}.zeros", zeros),
    ]


def _product(
    x: ir.Value,
    blocks: Blocks,
    stored: Sequence[ir.Value | None],
    bias: ir.Value | None = None,
) -> ir.Node:
    attributes = {
        "K": blocks.inputs,
        "N": len(blocks.numbers),
        "bits": blocks.bits,
        "block_size": BLOCK,
        "accuracy_level": ACCURACY_LEVEL,
    }
    inputs = [x, *stored, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    return ir.node("MatMulNBits", inputs, attributes, domain=_DOMAIN)


def _quantize_product(model: ir.Model, value: ir.Value, bits: int) -> None:
    """A product with ``value`` [inputs, outputs], and the sum with a bias, as one node."""
    blocks = quantize(np.ascontiguousarray(constant_of(value).T), bits)
    assert value.name is not None
    stored = _register_blocks(model, value.name, blocks)
    for usage in list(value.uses()):
        node = usage.node
        x, found = node.inputs[0], bias_after(node, len(blocks.numbers))
        assert x is not None
        total, bias = found or (None, None)
        if blocks.offsets:
            x = _with_block_sums(model, node, x, blocks.columns)
        replace_product(node, _product(x, blocks, stored, bias), total, model.graph)
    model.graph.initializers.pop(value.name)


def _with_block_sums(model: ir.Model, before: ir.Node, x: ir.Value, columns: int) -> ir.Value:
    """[x, sums of its blocks], which a product with offsets takes."""
    name, sums = f"block_sums.{columns}", block_sums(columns)
    found = model.graph.initializers
    parts = [f"{name}.{part}" for part in ("numbers", "scales", "zeros")]
    if parts[0] in found:
        stored: list[ir.Value | None] = [found[part] for part in parts]
    else:
        stored = _register_blocks(model, name, sums)
    summed = _product(x, sums, stored)
    joined = ir.node("Concat", [x, summed.outputs[0]], {"axis": -1})
    for node, what in ((summed, "sums"), (joined, "joined")):
        node.name = f"{before.name}.{what}"
        node.outputs[0].name = f"{before.outputs[0].name}.{what}"
        before.prepend(node)
    return joined.outputs[0]


def _quantize_table(model: ir.Model, value: ir.Value) -> None:
    """An embedding, a head, or both in one: one tensor serves the look-up and the product."""
    blocks = quantize(constant_of(value), TABLE_BITS)
    assert value.name is not None
    stored = _register_blocks(model, value.name, blocks)
    for usage in list(value.uses()):
        node = usage.node
        if node.op_type == "Gather":
            _look_up(model, node, blocks, stored)
        else:
            rows = node.inputs[0]
            assert rows is not None
            replace(node, _product(rows, blocks, stored), model.graph)
    model.graph.initializers.pop(value.name)


def _look_up(
    model: ir.Model, node: ir.Node, blocks: Blocks, stored: Sequence[ir.Value | None]
) -> None:
    """Replace a Gather by a look-up of quantized rows, cut to the matrix's width."""
    numbers, scales, _ = stored
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK, "bits": blocks.bits}
    inputs = [numbers, node.inputs[1], scales]
    found = ir.node("GatherBlockQuantized", inputs, attributes, domain=_DOMAIN)
    found.name = f"{node.name}.blocks"
    if blocks.columns % BLOCK == 0:
        replace(node, found, model.graph)
        return
    found.outputs[0].name = f"{node.outputs[0].name}.padded"
    node.prepend(found)
    ends = [
        register(model, f"{numbers.name if numbers else ''}.{what}", np.array([at], np.int64))
        for what, at in (("first", 0), ("end", blocks.columns), ("axis", -1))
    ]
    replace(node, ir.node("Slice", [found.outputs[0], *ends]), model.graph)


def share_tables(model: onnx.ModelProto) -> None:
    """Give look-ups their two-dimensional view of a table that a product may read in blocks.

    The view is an initializer of another shape over the same bytes of the weights file, where both
    are mapped from: nothing is stored twice.

    Args:
        model: with its weights in a file beside it.
    """
    graph = model.graph
    share_interleaved(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "GatherBlockQuantized":
            continue
        table = tensors[node.input[0]]
        rows, *inner = table.dims
        users = [other for other in graph.node if table.name in other.input]
        view = table if len(users) == 1 else graph.initializer.add()
        view.CopyFrom(table)
        view.name = table.name if len(users) == 1 else table.name + _ROWS
        del view.dims[:]
        view.dims.extend([rows, int(np.prod(inner))])
        node.input[0] = view.name


def _narrow(model: ir.Model, value: ir.Value) -> None:
    """Store one float32 initializer as float16, with a Cast before each use."""
    assert value.name is not None
    wide = constant_of(value)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise ExportError(
            f"The weight {value.name!r} reaches {np.abs(wide).max():g}, which float16 cannot hold.",
            "Export with --weights float32.",
        )
    stored = register(model, f"{value.name}.float16", narrow)
    uses = list(value.uses())
    products = [usage for usage in uses if usage.node.op_type != "Gather"]
    if products:
        # Folded once when the graph is loaded.
        first = products[0].node
        cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})
        cast.outputs[0].name = f"{value.name}.float32"
        first.prepend(cast)
        for usage in products:
            usage.node.replace_input_with(usage.idx, cast.outputs[0])
    for usage in uses:
        if usage.node.op_type == "Gather":
            # Widen the rows that were looked up, not the table.
            node = usage.node
            node.replace_input_with(0, stored)
            rows = node.outputs[0]
            rows.type = ir.TensorType(ir.DataType.FLOAT16)
            cast = ir.node("Cast", [rows], {"to": int(ir.DataType.FLOAT)})
            cast.outputs[0].name = f"{rows.name}.float32"
            rows.replace_all_uses_with(cast.outputs[0])
            cast.replace_input_with(0, rows)
            node.append(cast)
    model.graph.initializers.pop(value.name)
