"""Matrices as they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from allmem_exporters.onnx.ir_utils import set_values
from allmem_exporters.quantization.blocks import Matrix, as_matrix
from allmem_exporters.quantization.stored_format import Layout, StoredFormat, StoredMatrix

_PART = "float32"


class Float32(StoredFormat):
    """Nothing is rounded, and the graph stays as it was traced."""

    weights = "float32"
    description = "32 bits"
    turned_products = True

    def layout(self, matrix: Matrix | Tensor) -> Layout:
        """See ``StoredFormat``."""
        rows, columns = matrix.shape
        return {_PART: ((rows, columns), np.dtype(np.float32))}

    def quantize(self, matrix: Matrix | Tensor, name: str) -> StoredMatrix:
        """See ``StoredFormat``."""
        rows, columns = matrix.shape
        whole = as_matrix(matrix).rows(0, rows).float().numpy()
        return StoredMatrix(name, self, rows, columns, {_PART: whole})

    def dequantize(self, stored: StoredMatrix, first: int, end: int) -> Tensor:
        """See ``StoredFormat``."""
        return torch.from_numpy(stored.tensors[_PART][first:end])

    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """Nothing."""
        return torch.zeros(blocks.shape[:2])

    def put_product(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """The value stays, and gets its values."""
        set_values(value, stored.tensors[_PART].turned())

    def put_table(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """The value stays, and gets its values."""
        set_values(value, stored.tensors[_PART])


FORMAT = Float32()
