"""Small changes of a traced graph, which every way to store weights needs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from allmem_exporters.quantization.part import Part

RESIDUAL_SUMS = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
"""Operators of ONNX Runtime that add a branch to the token stream, and norm the sum."""


def tensor_of(array: NDArray[np.generic] | Part, name: str) -> ir.TensorProtocol:
    """An array, or one that is made when the file is written, as a tensor of the graph."""
    if isinstance(array, np.ndarray):
        return ir.Tensor(array, name=name)
    return ir.LazyTensor(
        lambda: ir.Tensor(array.load(), name=name),
        dtype=ir.DataType.from_numpy(array.dtype),
        shape=ir.Shape(array.shape),
        name=name,
    )


def set_values(value: ir.Value, array: NDArray[np.generic] | Part) -> None:
    """Give an initializer its values."""
    value.const_value = tensor_of(array, str(value.name))


def constant_of(value: ir.Value) -> NDArray[np.float32]:
    """The values of an initializer."""
    assert value.const_value is not None
    return value.const_value.numpy()


def register(model: ir.Model, name: str, array: NDArray[np.generic] | Part) -> ir.Value:
    """A new initializer; a part has its values when the file is written."""
    tensor = tensor_of(array, name)
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
