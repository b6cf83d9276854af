"""Products of one input become one product, and so do products that are added to each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from allmem_exporters.generic.matrices import Joined
from allmem_exporters.generic.passes.values import like, only_producer, only_use, take_over, width
from allmem_exporters.generic.passes.views import split_node
from allmem_exporters.onnx.ir_utils import bias_after, constant_of, register
from allmem_exporters.quantization.blocks import Matrix

_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class Product:
    """A product with a large matrix, and the sum with a bias behind it.

    Args:
        node: the MatMul.
        name: of its matrix.
        total: the Add; None without a bias.
        bias: that it adds.
    """

    node: ir.Node
    name: str
    total: ir.Node | None
    bias: ir.Value | None

    @property
    def nodes(self) -> list[ir.Node]:
        """In the order in which they can be removed."""
        return [self.node] if self.total is None else [self.total, self.node]

    @property
    def output(self) -> ir.Value:
        """What the rest of the graph reads."""
        return (self.total or self.node).outputs[0]


def merge_products(
    model: ir.Model, matrices: Mapping[str, Matrix], attentions: Collection[str]
) -> dict[str, Matrix]:
    """Make one product of those of an attention, or of a module, that read the same, in place.

    Args:
        model: traced.
        matrices: the large ones by the names of its initializers.
        attentions: paths of the attentions.

    Returns:
        The large matrices that it has now.
    """
    groups: dict[tuple[ir.Value, str], list[Product]] = {}
    for node in model.graph:
        if (product := _product(node, matrices)) is not None and node.inputs[0] is not None:
            place = _place(product.name, attentions)
            groups.setdefault((node.inputs[0], place), []).append(product)
    found = dict(matrices)
    for (x, _), products in groups.items():
        if len(products) > 1:
            # What passes an activation comes first, as the fused gate wants it.
            products.sort(key=lambda one: only_use(one.output, "QuickGelu") is None)
            _merge(model, x, products, found)
    return found


def _product(node: ir.Node | None, matrices: Mapping[str, Matrix]) -> Product | None:
    """A product with a matrix that nothing else reads."""
    if node is None or node.op_type != "MatMul":
        return None
    weight = node.inputs[1]
    name = str(weight.name) if weight is not None else ""
    if weight is None or name not in matrices or len(weight.uses()) != 1:
        return None
    total, bias = bias_after(node, matrices[name].shape[0]) or (None, None)
    return Product(node, name, total, bias)


def _place(name: str, attentions: Collection[str]) -> str:
    """Which products may become one: those of an attention and its memory, or of a module."""
    module = name.removesuffix(_WEIGHT)
    for path in attentions:
        if module.startswith(f"{path}."):
            return path
    return module.rpartition(".")[0]


def _merge(
    model: ir.Model, x: ir.Value, products: Sequence[Product], found: dict[str, Matrix]
) -> None:
    """Put one product in the place of several, and split what it gives."""
    matrix = Joined(tuple(found.pop(one.name) for one in products))
    widths = [part.shape[0] for part in matrix.parts]
    name = _name_of([one.name for one in products])
    biases = None
    if any(one.bias is not None for one in products):
        parts = (
            np.zeros(size, np.float32) if one.bias is None else constant_of(one.bias)
            for one, size in zip(products, widths, strict=True)
        )
        biases = np.concatenate(list(parts))
    nodes = multiply(model, x, name, matrix, biases, products[0].node)
    split = split_node(model, nodes[-1].outputs[0], widths, nodes[-1].outputs[0])
    first = min((one.node for one in products), key=list(model.graph).index)
    first.prepend([*nodes, split])
    for value, one in zip(split.outputs, products, strict=True):
        take_over(like(value, one.output), one.output)
    for one in products:
        model.graph.remove(one.nodes, safe=True)
        model.graph.initializers.pop(one.name)
    found[name] = matrix


def add_in_products(model: ir.Model, matrices: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Make one product of two that are added to each other, in place.

    Args:
        model: traced.
        matrices: the large ones by the names of its initializers.

    Returns:
        The large matrices that it has now.
    """
    found = dict(matrices)
    for node in list(model.graph):
        if node.op_type != "Add":
            continue
        products = [product_behind(value, found) for value in node.inputs]
        one, other = products if len(products) == 2 else (None, None)
        if one is not None and other is not None and one.node is not other.node:
            _add(model, node, (one, other), found)
    return found


def product_behind(value: ir.Value | None, matrices: Mapping[str, Matrix]) -> Product | None:
    """The product that makes a value which one other node reads, with or without a bias.

    Args:
        value: of a graph.
        matrices: the large ones by the names of its initializers.
    """
    product = _product(_behind_bias(value), matrices)
    return product if product is not None and product.output is value else None


def _behind_bias(value: ir.Value | None) -> ir.Node | None:
    """The product that makes a value, with or without a bias."""
    total = only_producer(value, "Add")
    if total is None:
        return only_producer(value, "MatMul")
    made = [only_producer(one, "MatMul") for one in total.inputs]
    return next((one for one in made if one is not None), None)


def _add(
    model: ir.Model, added: ir.Node, products: Sequence[Product], found: dict[str, Matrix]
) -> None:
    """Put one product of the joined inputs in the place of a sum of products."""
    inputs = [one.node.inputs[0] for one in products]
    sizes = [width(x) for x in inputs if x is not None]
    if None in sizes:
        return
    matrix = Joined(tuple(found.pop(one.name) for one in products), axis=1)
    name = _name_of([one.name for one in products])
    known = [constant_of(one.bias) for one in products if one.bias is not None]
    concat = ir.node("Concat", inputs, {"axis": -1})
    whole, first = concat.outputs[0], inputs[0]
    assert first is not None
    like(whole, first, sum(size for size in sizes if size is not None)).name = f"{name}.inputs"
    bias = np.add.reduce(np.stack(known)) if known else None
    nodes = multiply(model, whole, name, matrix, bias, added)
    added.prepend([concat, *nodes])
    take_over(like(nodes[-1].outputs[0], added.outputs[0]), added.outputs[0])
    model.graph.remove(added, safe=True)
    for one in products:
        model.graph.remove(one.nodes, safe=True)
        model.graph.initializers.pop(one.name)
    found[name] = matrix


def multiply(
    model: ir.Model,
    x: ir.Value,
    name: str,
    matrix: Matrix,
    bias: NDArray[Any] | None,
    output_like: ir.Node,
) -> list[ir.Node]:
    """Nodes of a product with a matrix that has no values yet; the last gives it out.

    Args:
        model: gets the matrix and the bias as initializers.
        x: that is multiplied.
        name: of the matrix.
        matrix: of which the size is used.
        bias: that is added; None without.
        output_like: a node whose output has the same type, and the same shape but for the width.
    """
    rows, columns = matrix.shape
    weight = register(model, name, np.broadcast_to(np.float32(0), (columns, rows)))
    nodes = [ir.node("MatMul", [x, weight])]
    if bias is not None:
        given = register(model, f"{name.removesuffix(_WEIGHT)}.bias", bias)
        nodes.append(ir.node("Add", [nodes[0].outputs[0], given]))
    for node in nodes:
        like(node.outputs[0], output_like.outputs[0], rows)
        node.outputs[0].name = f"{name.removesuffix(_WEIGHT)}.{node.op_type}"
    return nodes


def _name_of(names: Sequence[str]) -> str:
    """What they have in common, and the rest of each."""
    modules = [name.removesuffix(_WEIGHT) for name in names]
    shared = commonprefix(modules).rpartition(".")[0] + "."
    return shared + "+".join(one.removeprefix(shared) for one in modules) + _WEIGHT
