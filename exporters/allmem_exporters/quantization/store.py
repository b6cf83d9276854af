"""Store the matrices of a traced graph in a format, in place.

Only matrices of products and embeddings change; norms, the control product (learning rates,
momentum, gates), taps and initial fast weights stay float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from allmem_exporters.quantization.blocks import Matrix
from allmem_exporters.quantization.deferred import Storing
from allmem_exporters.quantization.float32 import Float32
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix


def store(
    model: ir.Model,
    stored_as: StoredFormat,
    matrices: Mapping[str, Matrix],
    storing: Storing | None = None,
) -> dict[str, StoredMatrix]:
    """Put every matrix into ``model`` as it will be stored when the file is written.

    The arithmetic around them stays float32. Float16 is widened when the model is loaded; integers
    are multiplied as they are, with inputs rounded to eight bits.

    Args:
        model: as `trace` returns it.
        stored_as: the format of products; its ``table_format`` is that of embedding and head.
        matrices: by the names of the graph's initializers.
        storing: counts what is stored.

    Returns:
        What will be stored, by the same names.

    Raises:
        ExportError: when the file is written, a weight that the format cannot hold.
    """
    storing = storing or Storing()
    kept: dict[str, StoredMatrix] = {}
    for name, value in list(model.graph.initializers.items()):
        if name not in matrices:
            continue
        is_table = any(usage.node.op_type != "MatMul" for usage in value.uses())
        one = stored_as.table_format if is_table else stored_as
        kept[name] = storing.later(one, matrices[name], name)
        if is_table:
            one.put_table(model, value, kept[name])
        else:
            one.put_product(model, value, kept[name])
        if not isinstance(one, Float32):
            model.graph.initializers.pop(name)
    stored_as.finish_graph(model)
    return kept
