"""What formats for MatMulNBits of ONNX Runtime have in common.

A weight is scale x (number - zero point), with one float32 scale and one zero point for 32
neighbors along the inputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from allmem_exporters.onnx.ir_utils import bias_after, register, replace, replace_product
from allmem_exporters.quantization.blocks import (
    BLOCK,
    Matrix,
    as_matrix,
    block_count,
    in_blocks,
    row_pieces,
)
from allmem_exporters.quantization.stored_format import (
    ROWS_VIEW,
    Layout,
    StoredFormat,
    StoredMatrix,
)

ACCURACY_LEVEL = 4
"""Of MatMulNBits: its inputs are rounded to eight bits, in blocks as the weights are."""

_EXACT_INPUTS = 1
"""The accuracy level at which they are not."""

_DOMAIN = "com.microsoft"
_MATMUL, _LOOK_UP = "MatMulNBits", "GatherBlockQuantized"

Rounded = tuple[Tensor, ...]
"""Of a piece of rows: numbers [rows, blocks, BLOCK] uint8, scales [rows, blocks] float32, and zero
points [rows, blocks] uint8 where they are not all in the middle of the range."""


class MatMulNBitsFormat(StoredFormat):
    """Integers of ``bits`` bits.

    A row may have more blocks than its columns need: they are offsets, see ``matmul_nbits_int4``.
    """

    kernel = "onnxruntime"
    bits: ClassVar[int]

    @abstractmethod
    def rounding(self, matrix: Matrix) -> Callable[[Tensor], Rounded]:
        """How blocks [rows, blocks, BLOCK] of ``matrix`` are rounded."""

    def layout(self, matrix: Matrix | Tensor) -> Layout:
        """See ``StoredFormat``; a few rows are rounded to see what becomes of them."""
        rows, matrix = matrix.shape[0], as_matrix(matrix)
        round_rows = self.rounding(matrix)
        row = self._stored(round_rows(in_blocks(matrix.rows(0, 1))))
        return {part: ((rows, *found.shape[1:]), found.dtype) for part, found in row.items()}

    def quantize(self, matrix: Matrix | Tensor, name: str) -> StoredMatrix:
        """See ``StoredFormat``."""
        (rows, columns), matrix = matrix.shape, as_matrix(matrix)
        round_rows = self.rounding(matrix)
        tensors: dict[str, NDArray[np.generic]] = {}
        for first, end in row_pieces(rows, columns):
            found = self._stored(round_rows(in_blocks(matrix.rows(first, end))))
            for part, piece in found.items():
                if part not in tensors:
                    tensors[part] = np.empty((rows, *piece.shape[1:]), piece.dtype)
                tensors[part][first:end] = piece
        return StoredMatrix(name, self, rows, columns, tensors)

    def _stored(self, rounded: Rounded) -> dict[str, NDArray[np.generic]]:
        """Rows as they lie in the file."""
        numbers, scales, *zeros = rounded
        found: dict[str, NDArray[np.generic]] = {
            "numbers": packed(numbers.numpy(), self.bits),
            "scales": scales.numpy(),
        }
        if zeros:
            found["zeros"] = packed_zeros(zeros[0].numpy(), self.bits)
        return found

    def dequantize(self, stored: StoredMatrix, first: int, end: int) -> Tensor:
        """See ``StoredFormat``."""
        place, count = slice(first, end), stored.tensors["scales"].shape[1]
        wide = torch.from_numpy(unpacked(stored.tensors["numbers"][place], self.bits)).float()
        if "zeros" in stored.tensors:
            zeros = unpacked(stored.tensors["zeros"][place], self.bits)[:, :count, None]
            wide -= torch.from_numpy(zeros)
        else:
            wide -= 1 << (self.bits - 1)
        wide *= torch.from_numpy(stored.tensors["scales"][place])[..., None]
        matrix, columns = wide.reshape(end - first, -1), stored.columns
        if offset_blocks(stored):
            shift = matrix[:, columns:][:, : columns // BLOCK]
            return matrix[:, :columns] + shift.repeat_interleave(BLOCK, dim=1)
        return matrix[:, :columns]

    def put_product(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """A product with ``value``, and the sum with a bias, as one node."""
        initializers = register_parts(model, stored)
        for usage in list(value.uses()):
            node = usage.node
            x, found = node.inputs[0], bias_after(node, stored.rows)
            assert x is not None
            total, bias = found or (None, None)
            x = self.inputs_of(model, node, x, stored)
            replace_product(node, product(x, stored, initializers, bias), total, model.graph)

    def inputs_of(
        self, model: ir.Model, node: ir.Node, x: ir.Value, stored: StoredMatrix
    ) -> ir.Value:
        """What the product that replaces ``node`` takes where that took ``x``."""
        return x

    def put_table(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """An embedding, a head, or both in one: one tensor serves the look-up and the product."""
        initializers = register_parts(model, stored)
        for usage in list(value.uses()):
            node = usage.node
            if node.op_type == "Gather":
                _look_up(model, node, stored, initializers)
            else:
                rows = node.inputs[0]
                assert rows is not None
                replace(node, product(rows, stored, initializers), model.graph)

    @staticmethod
    def finish_file(graph: onnx.GraphProto) -> None:
        """Give look-ups their two-dimensional view of a table that a product reads in blocks.

        The view is an initializer of another shape over the same bytes of the weights file, where
        both are mapped from: nothing is stored twice.
        """
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type != _LOOK_UP:
                continue
            table = tensors[node.input[0]]
            rows, *inner = table.dims
            shared = len([other for other in graph.node if table.name in other.input]) > 1
            view = graph.initializer.add() if shared else table
            view.CopyFrom(table)
            view.name = table.name + ROWS_VIEW if shared else table.name
            del view.dims[:]
            view.dims.extend([rows, int(np.prod(inner))])
            node.input[0] = view.name

    @staticmethod
    def widen_inputs(
        model: onnx.ModelProto, folder: Path, *, in_pieces: bool
    ) -> dict[str, NDArray[np.float32]]:
        """See ``StoredFormat``."""
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == _MATMUL and attribute.name == "accuracy_level":
                    attribute.i = _EXACT_INPUTS
        return {}


def offset_blocks(stored: StoredMatrix) -> int:
    """Blocks of a row after those of its columns."""
    blocks: int = stored.tensors["scales"].shape[1]
    return blocks - block_count(stored.columns)


def packed(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """As the kernel reads them: of two numbers in a byte the first lies low."""
    if bits == 8:
        return np.ascontiguousarray(numbers)
    return np.ascontiguousarray(numbers[..., ::2] | numbers[..., 1::2] << 4)


def packed_zeros(zeros: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Zero points [rows, blocks] as [rows, ceil(blocks * bits / 8)]."""
    odd = zeros.shape[1] * bits % 8 // 4
    return packed(np.pad(zeros, ((0, 0), (0, odd))), bits)


def unpacked(stored: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The inverse of ``packed``."""
    if bits == 8:
        return stored
    both = np.stack([stored & 15, stored >> 4], axis=-1)
    return both.reshape(*stored.shape[:-1], -1)


def register_parts(model: ir.Model, stored: StoredMatrix) -> list[ir.Value | None]:
    """Numbers, scales and zero points (None without) as initializers."""
    return [
        register(model, f"{stored.name}.{part}", stored.tensors[part])
        if part in stored.tensors
        else None
        for part in ("numbers", "scales", "zeros")
    ]


def product(
    x: ir.Value,
    stored: StoredMatrix,
    initializers: Sequence[ir.Value | None],
    bias: ir.Value | None = None,
) -> ir.Node:
    """A MatMulNBits."""
    assert isinstance(stored.format, MatMulNBitsFormat)
    attributes = {
        "K": stored.columns + offset_blocks(stored) * BLOCK,
        "N": stored.rows,
        "bits": stored.format.bits,
        "block_size": BLOCK,
        "accuracy_level": ACCURACY_LEVEL,
    }
    inputs = [x, *initializers, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    return ir.node(_MATMUL, inputs, attributes, domain=_DOMAIN)


def _look_up(
    model: ir.Model,
    node: ir.Node,
    stored: StoredMatrix,
    initializers: Sequence[ir.Value | None],
) -> None:
    """Replace a Gather by a look-up of quantized rows, cut to the matrix's width."""
    assert isinstance(stored.format, MatMulNBitsFormat)
    numbers, scales, _ = initializers
    bits = stored.format.bits
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK, "bits": bits}
    inputs = [numbers, node.inputs[1], scales]
    found = ir.node(_LOOK_UP, inputs, attributes, domain=_DOMAIN)
    found.name = f"{node.name}.blocks"
    if stored.columns % BLOCK == 0:
        replace(node, found, model.graph)
        return
    found.outputs[0].name = f"{node.outputs[0].name}.padded"
    node.prepend(found)
    ends = [
        register(model, f"{stored.name}.numbers.{what}", np.array([at], np.int64))
        for what, at in (("first", 0), ("end", stored.columns), ("axis", -1))
    ]
    replace(node, ir.node("Slice", [found.outputs[0], *ends]), model.graph)
