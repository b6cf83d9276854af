"""Matrices as float16, widened when the model is opened."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from allmem_exporters.errors import ExportError
from allmem_exporters.onnx.ir_utils import register
from allmem_exporters.quantization.blocks import Matrix, as_matrix, largest_of, row_pieces
from allmem_exporters.quantization.part import Part
from allmem_exporters.quantization.stored_format import Layout, StoredFormat, StoredMatrix

_PART = "float16"


class Float16(StoredFormat):
    """Half of the file; the arithmetic stays float32."""

    weights = "float16"
    description = "16 bits"
    turned_products = True

    def layout(self, matrix: Matrix | Tensor) -> Layout:
        """See ``StoredFormat``."""
        rows, columns = matrix.shape
        return {_PART: ((rows, columns), np.dtype(np.float16))}

    def quantize(self, matrix: Matrix | Tensor, name: str) -> StoredMatrix:
        """See ``StoredFormat``."""
        (rows, columns), matrix = matrix.shape, as_matrix(matrix)
        narrow = torch.empty(rows, columns, dtype=torch.float16)
        for first, end in row_pieces(rows, columns):
            narrow[first:end] = matrix.rows(first, end)
        if not bool(narrow.isfinite().all()):
            raise ExportError(
                f"The weight {name!r} reaches {largest_of(matrix):g}, which float16 cannot hold.",
                "Export with --weights float32.",
            )
        return StoredMatrix(name, self, rows, columns, {_PART: narrow.numpy()})

    def dequantize(self, stored: StoredMatrix, first: int, end: int) -> Tensor:
        """See ``StoredFormat``."""
        return torch.from_numpy(stored.tensors[_PART][first:end]).float()

    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """Half a unit in the last place of the largest weight."""
        return blocks.abs().amax(-1) * 2.0**-11 + 2.0**-25

    def put_product(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """See ``StoredFormat``."""
        self._put(model, value, stored.tensors[_PART].turned())

    def put_table(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """See ``StoredFormat``."""
        self._put(model, value, stored.tensors[_PART])

    def _put(self, model: ir.Model, value: ir.Value, narrow: Part) -> None:
        """The float16 initializer, with a Cast before each use."""
        stored = register(model, f"{value.name}.{_PART}", narrow)
        uses = list(value.uses())
        products = [usage for usage in uses if usage.node.op_type != "Gather"]
        if products:
            # Folded once when the graph is loaded.
            cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})
            cast.outputs[0].name = f"{value.name}.float32"
            products[0].node.prepend(cast)
            for usage in products:
                usage.node.replace_input_with(usage.idx, cast.outputs[0])
        for usage in uses:
            if usage.node.op_type == "Gather":
                _widen_rows(usage.node, stored)


FORMAT = Float16()


def _widen_rows(gather: ir.Node, table: ir.Value) -> None:
    """Let a look-up read the float16 ``table``, and widen the rows it finds, not the table."""
    gather.replace_input_with(0, table)
    rows = gather.outputs[0]
    rows.type = ir.TensorType(ir.DataType.FLOAT16)
    cast = ir.node("Cast", [rows], {"to": int(ir.DataType.FLOAT)})
    cast.outputs[0].name = f"{rows.name}.float32"
    rows.replace_all_uses_with(cast.outputs[0])
    cast.replace_input_with(0, rows)
    gather.append(cast)
