"""Matrices as they are."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix


class Float32(StoredFormat):
    """Nothing is rounded, and the graph stays as it was traced."""

    weights = "float32"
    description = "32 bits"

    def quantize(self, matrix: Tensor, name: str) -> StoredMatrix:
        """See ``StoredFormat``."""
        rows, columns = matrix.shape
        return StoredMatrix(name, self, rows, columns, {"float32": matrix.float().numpy()})

    def dequantize(self, stored: StoredMatrix, first: int, end: int) -> Tensor:
        """See ``StoredFormat``."""
        return torch.from_numpy(stored.tensors["float32"][first:end])

    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """Nothing."""
        return torch.zeros(blocks.shape[:2])

    def put_product(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """The value stays."""

    def put_table(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """The value stays."""


FORMAT = Float32()
