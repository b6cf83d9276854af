"""How weights of float32 graphs are stored: float32, float16, or whole numbers in blocks.

Only matrices of products and embeddings change; norms, the control product (learning rates,
momentum, gates), taps and initial fast weights stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from allmem_exporters.errors import ExportError
from allmem_exporters.quantise import (
    BITS,
    BLOCK,
    Blocks,
    block_sums,
    quantise,
    quantise_affine,
)
from allmem_ops.reference.product import TILE, interleaved, interleaved_scales
from allmem_ops.schema import DOMAIN, QUANTISED_MATMUL

STORAGE = ("float32", "float16", "int8", "int4")

TABLE_BITS = 8
"""Of embedding and head, in int4 too: the head is the product that four bits harm most."""

ACCURACY_LEVEL = 4
"""Of MatMulNBits: its inputs are rounded to eight bits, in blocks as the weights are."""

_DOMAIN = "com.microsoft"
_ROWS = ".rows"


PRODUCTS = ("onnxruntime", "allmem")
"""Who multiplies whole numbers: MatMulNBits, which CUDA has too, or our QuantisedMatMul."""


def store(model: ir.Model, storage: str, products: str = "onnxruntime") -> None:
    """Change how the matrices of ``model`` are stored, in place.

    The arithmetic around them stays float32. Float16 is widened when the model is loaded; whole
    numbers are multiplied as they are, with inputs rounded to eight bits.

    Args:
        model: as `trace` returns it.
        storage: one of ``STORAGE``.
        products: one of ``PRODUCTS``.

    Raises:
        ExportError: an unknown storage, or a weight that it cannot hold.
    """
    if storage not in STORAGE:
        raise ExportError(f"weights is {storage!r}; allowed: {', '.join(STORAGE)}.")
    if storage == "float32":
        return
    if products not in PRODUCTS:
        raise ExportError(f"products is {products!r}; allowed: {', '.join(PRODUCTS)}.")
    for value in list(model.graph.initializers.values()):
        if _is_matrix(value):
            uses = list(value.uses())
            if storage == "float16":
                _narrow(model, value)
            elif products == "allmem":
                table = any(usage.node.op_type != "MatMul" for usage in uses)
                _interleave(model, value, TABLE_BITS if table else BITS[storage], table=table)
            elif any(usage.node.op_type != "MatMul" for usage in uses):
                _quantise_table(model, value)
            else:
                _quantise_product(model, value, BITS[storage])


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


def _constant_of(value: ir.Value) -> NDArray[np.float32]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _register(model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
    """A new initializer."""
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value


def _register_blocks(model: ir.Model, name: str, blocks: Blocks) -> list[ir.Value | None]:
    """Numbers, scales and zero points (None without) as initializers."""
    zeros = blocks.packed_zeros()
    return [
        _register(model, f"{name}.numbers", blocks.packed()),
        _register(model, f"{name}.scales", blocks.scales),
        None if zeros is None else _register(model, f"{name}.zeros", zeros),
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


def _replace(old: ir.Node, new: ir.Node, graph: ir.Graph) -> None:
    """Put ``new`` in the place of ``old``; its output keeps the name and the shape."""
    before, after = old.outputs[0], new.outputs[0]
    after.name, after.type, after.shape = before.name, before.type, before.shape
    new.name = old.name
    old.append(new)
    before.replace_all_uses_with(after)
    graph.remove(old, safe=True)


def _quantise_product(model: ir.Model, value: ir.Value, bits: int) -> None:
    """A product with ``value`` [inputs, outputs], and the sum with a bias, as one node."""
    blocks = quantise(np.ascontiguousarray(_constant_of(value).T), bits)
    assert value.name is not None
    stored = _register_blocks(model, value.name, blocks)
    for usage in list(value.uses()):
        node, bias = usage.node, None
        x, sums = node.inputs[0], list(node.outputs[0].uses())
        assert x is not None
        if len(sums) == 1 and sums[0].node.op_type == "Add":
            other = sums[0].node.inputs[1 - sums[0].idx]
            if (
                other is not None
                and other.is_initializer()
                and other.shape == ir.Shape([len(blocks.numbers)])
            ):
                bias = other
        if blocks.offsets:
            x = _with_block_sums(model, node, x, blocks.columns)
        product = _product(x, blocks, stored, bias)
        if bias is None:
            _replace(node, product, model.graph)
        else:
            _replace(sums[0].node, product, model.graph)
            model.graph.remove(node, safe=True)
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


def _quantise_table(model: ir.Model, value: ir.Value) -> None:
    """An embedding, a head, or both in one: one tensor serves the look-up and the product."""
    blocks = quantise(_constant_of(value), TABLE_BITS)
    assert value.name is not None
    stored = _register_blocks(model, value.name, blocks)
    for usage in list(value.uses()):
        node = usage.node
        if node.op_type == "Gather":
            _look_up(model, node, blocks, stored)
        else:
            rows = node.inputs[0]
            assert rows is not None
            _replace(node, _product(rows, blocks, stored), model.graph)
    model.graph.initializers.pop(value.name)


def _look_up(
    model: ir.Model, node: ir.Node, blocks: Blocks, stored: Sequence[ir.Value | None]
) -> None:
    """Replace a Gather by a look-up of quantised rows, cut to the matrix's width."""
    numbers, scales, _ = stored
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK, "bits": blocks.bits}
    inputs = [numbers, node.inputs[1], scales]
    found = ir.node("GatherBlockQuantized", inputs, attributes, domain=_DOMAIN)
    found.name = f"{node.name}.blocks"
    if blocks.columns % BLOCK == 0:
        _replace(node, found, model.graph)
        return
    found.outputs[0].name = f"{node.outputs[0].name}.padded"
    node.prepend(found)
    ends = [
        _register(model, f"{numbers.name if numbers else ''}.{what}", np.array([at], np.int64))
        for what, at in (("first", 0), ("end", blocks.columns), ("axis", -1))
    ]
    _replace(node, ir.node("Slice", [found.outputs[0], *ends]), model.graph)


def _interleave(model: ir.Model, value: ir.Value, bits: int, *, table: bool) -> None:
    """Products with ``value`` as QuantisedMatMul; a table is [outputs, inputs], others turned."""
    matrix = _constant_of(value) if table else np.ascontiguousarray(_constant_of(value).T)
    numbers, kinds = quantise_affine(matrix, bits)
    name, width = value.name, len(matrix)
    numbers_value = _register(model, f"{name}.numbers", interleaved(numbers, bits))
    scales_value = _register(model, f"{name}.scales", interleaved_scales(*kinds))
    for usage in list(value.uses()):
        node = usage.node
        if node.op_type == "Gather":
            _look_up_interleaved(model, node, numbers_value, scales_value, matrix.shape[1])
            continue
        inputs = [node.inputs[0], numbers_value, scales_value]
        attributes = {"width": width, "bits": bits}
        _replace(
            node, ir.node(QUANTISED_MATMUL.name, inputs, attributes, domain=DOMAIN), model.graph
        )
    model.graph.initializers.pop(str(name))


def _look_up_interleaved(
    model: ir.Model, node: ir.Node, numbers: ir.Value, scales: ir.Value, columns: int
) -> None:
    """Replace a Gather by look-ups of the four-byte groups and scales of a row.

    The views that they read are made by ``share_tables``.
    """
    blocks = numbers.shape[1] if numbers.shape else 0
    name = node.name

    def constant(what: str, array: NDArray[np.generic]) -> ir.Value:
        return _register(model, f"{name}.{what}", array)

    def emit(kind: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        made = ir.node(kind, list(inputs), attributes)
        made.name = f"{name}.{kind}.{len(created)}"
        made.outputs[0].name = f"{made.name}.out"
        node.prepend(made)
        created.append(made)
        return made.outputs[0]

    created: list[ir.Node] = []
    tile = constant("tile", np.array([TILE], np.int64))
    ids = emit("Unsqueeze", node.inputs[1], constant("last", np.array([-1], np.int64)))
    lane, which = emit("Mod", ids, tile), emit("Div", ids, tile)

    def rows(view: ir.Value, groups: int, what: str) -> ir.Value:
        step = constant(f"{what}.step", np.array([groups * TILE], np.int64))
        places = constant(f"{what}.places", np.arange(groups, dtype=np.int64) * TILE)
        base = emit("Add", emit("Mul", which, step), lane)
        return emit("Gather", view, emit("Add", base, places), axis=0)

    found = emit("Cast", rows(numbers, int(blocks) * BLOCK // 4, "groups"), to=ir.DataType.FLOAT)
    shape = constant("blocks", np.array([0, 0, int(blocks), BLOCK], np.int64))
    wide = emit("Sub", emit("Reshape", found, shape), constant("zero", np.float32([128.0])))
    scale = emit("Cast", rows(scales, int(blocks), "scales"), to=ir.DataType.FLOAT)
    scaled = emit("Mul", wide, scale)
    joined = constant("joined", np.array([0, 0, -1], np.int64))
    if columns % BLOCK:
        raise ExportError(f"An embedding of width {columns} is no multiple of {BLOCK}.")
    _replace(node, ir.node("Reshape", [scaled, joined]), model.graph)


def share_tables(model: onnx.ModelProto) -> None:
    """Give look-ups their two-dimensional view of a table that a product may read in blocks.

    The view is an initializer of another shape over the same bytes of the weights file, where both
    are mapped from: nothing is stored twice.

    Args:
        model: with its weights in a file beside it.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    interleaved_tables = {
        name
        for node in graph.node
        if node.op_type == QUANTISED_MATMUL.name
        for name in node.input[1:3]
    }
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in interleaved_tables:
            table, view = tensors[node.input[0]], graph.initializer.add()
            view.CopyFrom(table)
            view.name = table.name + _ROWS
            inner = 4 if table.data_type == onnx.TensorProto.UINT8 else 1
            view.ClearField("dims")
            view.dims.extend([int(np.prod(table.dims)) // inner, inner])
            node.input[0] = view.name
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
    wide = _constant_of(value)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise ExportError(
            f"The weight {value.name!r} reaches {np.abs(wide).max():g}, which float16 cannot hold.",
            "Export with --weights float32.",
        )
    stored = _register(model, f"{value.name}.float16", narrow)
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
