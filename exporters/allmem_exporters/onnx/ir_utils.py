"""Small changes of a traced graph, which every way to store weights needs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant_of(value: ir.Value) -> NDArray[np.float32]:
    """The values of an initializer."""
    assert value.const_value is not None
    return value.const_value.numpy()


def register(model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
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


def replace(old: ir.Node, new: ir.Node, graph: ir.Graph) -> None:
    """Put ``new`` in the place of ``old``; its output keeps the name and the shape."""
    before, after = old.outputs[0], new.outputs[0]
    after.name, after.type, after.shape = before.name, before.type, before.shape
    new.name = old.name
    old.append(new)
    before.replace_all_uses_with(after)
    graph.remove(old, safe=True)


def bias_after(product: ir.Node, width: int) -> tuple[ir.Node, ir.Value] | None:
    """The sum that follows a product, and the bias it adds; None if there is no such sum."""
    sums = list(product.outputs[0].uses())
    if len(sums) != 1 or sums[0].node.op_type != "Add":
        return None
    other = sums[0].node.inputs[1 - sums[0].idx]
    if other is None or not other.is_initializer() or other.shape != ir.Shape([width]):
        return None
    return sums[0].node, other


def replace_product(old: ir.Node, new: ir.Node, total: ir.Node | None, graph: ir.Graph) -> None:
    """Put ``new`` in the place of a product, and of the sum after it where ``new`` has its bias."""
    if total is None:
        replace(old, new, graph)
    else:
        replace(total, new, graph)
        graph.remove(old, safe=True)
