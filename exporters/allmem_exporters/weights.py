"""How weights of float32 graphs are stored: as they are, or as float16, widened when loaded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from allmem_exporters.errors import ExportError

STORAGE = ("float32", "float16")


def store(model: ir.Model, storage: str) -> None:
    """Change how the matrices of ``model`` are stored, in place.

    Only matrices of products and embeddings change; norms, the control product (learning rates,
    momentum, gates), taps and initial fast weights stay float32. The arithmetic stays float32
    too: CPUs have no faster one.

    Args:
        model: as `trace` returns it.
        storage: ``float32`` or ``float16``.

    Raises:
        ExportError: an unknown storage, or a weight that float16 cannot hold.
    """
    if storage not in STORAGE:
        raise ExportError(f"weights is {storage!r}; allowed: {', '.join(STORAGE)}.")
    if storage == "float32":
        return
    for value in list(model.graph.initializers.values()):
        users = [(usage.node, usage.idx) for usage in value.uses()]
        matrix = [
            (node, index)
            for node, index in users
            if (node.op_type in ("MatMul", "Gemm") and index == 1)
            or (node.op_type == "Gather" and index == 0)
        ]
        exact = ".control." in str(value.name)
        if users and len(matrix) == len(users) and not exact and value.dtype == ir.DataType.FLOAT:
            _narrow(model, value)


def _narrow(model: ir.Model, value: ir.Value) -> None:
    """Store one float32 initializer as float16, with a Cast before each use."""
    assert value.const_value is not None and value.name is not None
    wide = value.const_value.numpy()
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise ExportError(
            f"The weight {value.name!r} reaches {np.abs(wide).max():g}, which float16 cannot hold.",
            "Export with --weights float32.",
        )
    stored = ir.Value(
        name=f"{value.name}.float16",
        shape=ir.Shape(narrow.shape),
        type=ir.TensorType(ir.DataType.FLOAT16),
        const_value=ir.Tensor(narrow, name=f"{value.name}.float16"),
    )
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
    model.graph.register_initializer(stored)
