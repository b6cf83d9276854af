"""Lets products give out queries, keys and values in the order in which the operator takes them.

Whatever transformers' code does between a product and an attention that only moves numbers is an
order of the rows of its matrix: heads side by side, parts that rotate, neighboring coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from allmem_exporters.generic.matrices import Reordered
from allmem_exporters.generic.passes.movement import Movement, NotMoved
from allmem_exporters.generic.passes.products import Product, product_behind
from allmem_exporters.generic.passes.values import like, take_over
from allmem_exporters.generic.passes.views import split_node
from allmem_exporters.onnx.ir_utils import constant_of, register
from allmem_exporters.quantization.blocks import Matrix
from allmem_ops.schema import SLIDING_WINDOW_ATTENTION

_TIME = 3
"""Tokens of the piece for which the order is looked at."""


def order_rows(model: ir.Model, matrices: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Take what moves numbers before an attention into the matrix of its product, in place.

    Args:
        model: traced, its products of one input merged.
        matrices: the large ones by the names of its initializers.

    Returns:
        The large matrices that it has now.
    """
    found = dict(matrices)
    for node in list(model.graph):
        if node.op_type == SLIDING_WINDOW_ATTENTION.name and node.inputs[0] is not None:
            try:
                _order(model, Movement(node.inputs[0]), found)
            except NotMoved:
                continue
    return found


def _order(model: ir.Model, moved: Movement, found: dict[str, Matrix]) -> None:
    product = product_behind(moved.source, found)
    if product is None or not moved.nodes or moved.is_read_elsewhere():
        return
    width = found[product.name].shape[0]
    places = moved.places((1, _TIME, width))
    order = places[0, 0]
    times = width * np.arange(_TIME)[:, None]
    if places.shape != (1, _TIME, len(order)) or (places[0] != order + times).any():
        return
    (use,) = moved.source.uses()
    others: list[ir.Value] = []
    if use.node.op_type == "Split":
        others = [
            part for part in use.node.outputs
            if not any(one.node in moved.nodes for one in part.uses())
        ]  # fmt: skip
    rest = np.setdiff1d(np.arange(width), order)
    if len(order) + len(rest) != width or len(rest) != sum(_width(one) for one in others):
        return
    _replace(model, product, moved, others, np.concatenate([order, rest]), found)


def _width(value: ir.Value) -> int:
    size = value.shape[-1] if value.shape is not None else 0
    return size if isinstance(size, int) else 0


def _replace(
    model: ir.Model,
    product: Product,
    moved: Movement,
    others: list[ir.Value],
    order: NDArray[Any],
    found: dict[str, Matrix],
) -> None:
    """Let a product give out its rows in another order, and drop all that moves them."""
    whole, last = product.output, product.total or product.node
    if (order != np.arange(len(order))).any():
        found[product.name] = Reordered(found[product.name], tuple(order.tolist()))
        if product.total is not None and product.bias is not None:
            bias = register(model, f"{whole.name}.bias", constant_of(product.bias)[order])
            product.total.replace_input_with(product.total.inputs.index(product.bias), bias)
    outputs, made = [moved.value, *others], [whole]
    if others:
        split = split_node(model, whole, [_width(one) for one in outputs], moved.value)
        last.append(split)
        made = list(split.outputs)
    for value, one in zip(made, outputs, strict=True):
        take_over(like(value, one), one)
    model.graph.remove(moved.nodes, safe=True)
