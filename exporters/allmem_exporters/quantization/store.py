"""Store the matrices of a traced graph in a format, in place.

Only matrices of products and embeddings change; norms, the control product (learning rates,
momentum, gates), taps and initial fast weights stay float32.
"""

from __future__ import annotations

import onnx_ir as ir
import torch

from allmem_exporters.onnx.ir_utils import constant_of
from allmem_exporters.quantization.float32 import Float32
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix


def store(model: ir.Model, stored_as: StoredFormat) -> dict[str, StoredMatrix]:
    """Store every matrix of ``model``, one after the other.

    The arithmetic around them stays float32. Float16 is widened when the model is loaded; integers
    are multiplied as they are, with inputs rounded to eight bits.

    Args:
        model: as `trace` returns it; float32 matrices leave it as they are stored.
        stored_as: the format of products; its ``table_format`` is that of embedding and head.

    Returns:
        What is stored, by the names that ``packed_matrices`` gives; nothing for float32.

    Raises:
        ExportError: a weight that the format cannot hold.
    """
    kept: dict[str, StoredMatrix] = {}
    if isinstance(stored_as, Float32):
        return kept
    for name, value in list(model.graph.initializers.items()):
        if not _is_matrix(value):
            continue
        matrix = torch.from_numpy(constant_of(value))
        if any(usage.node.op_type != "MatMul" for usage in value.uses()):
            kept[name] = stored_as.table_format.quantize(matrix, name)
            kept[name].format.put_table(model, value, kept[name])
        else:
            kept[name] = stored_as.quantize(matrix.T, name)
            stored_as.put_product(model, value, kept[name])
        model.graph.initializers.pop(name)
    stored_as.finish_graph(model)
    return kept


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
