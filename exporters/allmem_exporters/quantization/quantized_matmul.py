"""What formats for QuantisedMatMul, our own product of integers for CPUs, have in common.

Matrices are integers of 4 or 8 bits in blocks of 32 with float16 scales, laid out as the operator
reads them: see ``allmem_ops.reference.product``.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from allmem_exporters.errors import ExportError
from allmem_exporters.onnx.fusion import absorb_neighbors, name_all_outputs
from allmem_exporters.onnx.ir_utils import bias_after, register, replace, replace_product
from allmem_exporters.onnx.quantized_matmul_function import product_function
from allmem_exporters.onnx.widened import widen_products
from allmem_exporters.quantization.blocks import (
    BLOCK,
    Matrix,
    as_matrix,
    block_count,
    in_blocks,
    largest_of,
    row_pieces,
)
from allmem_exporters.quantization.interleaved_table import GROUP, look_up, share_views
from allmem_exporters.quantization.stored_format import (
    Carried,
    Layout,
    StoredFormat,
    StoredMatrix,
)
from allmem_ops.products import QUANTIZED_MATMUL
from allmem_ops.reference.product import TILE, interleaved, interleaved_scales, separated
from allmem_ops.schema import DOMAIN

HALF_DIGITS = 2.0**-11
"""What a value changes at most, relatively, when it is rounded to float16."""

_NORMAL = 2.0**-14
"""The least normal float16. Below it scales are rounded up, so that the ends of a block stay."""


class QuantizedMatMulFormat(StoredFormat):
    """Integers of ``bits`` bits and, for each block, ``kinds`` float16 factors."""

    kernel = "allmem"
    row_multiple = TILE
    bits: ClassVar[int]
    kinds: ClassVar[int]
    """1: scales; 2: scales and minimums."""

    @abstractmethod
    def round_blocks(self, blocks: Tensor) -> tuple[Tensor, ...]:
        """(numbers [n, BLOCK] uint8, then ``kinds`` times [n] float16) of blocks [n, BLOCK]."""

    @abstractmethod
    def numbers_with(self, blocks: Tensor, scales: Tensor, minimums: Tensor) -> tuple[Tensor, ...]:
        """The same as ``round_blocks`` with factors [n] float16 that are given."""

    @abstractmethod
    def widen(self, numbers: Tensor, factors: Tensor) -> Tensor:
        """Weights [..., BLOCK] float32 of float32 numbers and factors [..., kinds, 1]."""

    def rounding_of_factors(self, factors: Tensor) -> Tensor:
        """What weights [n] may differ by, because factors [n, kinds] were rounded to float16.

        Nothing, unless a format has a kind of the source's blocks for which this is better than
        rounding the weights anew.
        """
        return torch.zeros(len(factors))

    def layout(self, matrix: Matrix | Tensor) -> Layout:
        """See ``StoredFormat``."""
        rows, columns = matrix.shape
        count, tiles = block_count(columns), -(-rows // TILE)
        return {
            "numbers": ((tiles, count, 2 * BLOCK * self.bits), np.dtype(np.uint8)),
            "scales": ((tiles, count, self.kinds, TILE), np.dtype(np.float16)),
        }

    def quantize(self, matrix: Matrix | Tensor, name: str) -> StoredMatrix:
        """See ``StoredFormat``; a scale or a minimum beyond float16 is an error."""
        (rows, columns), matrix = matrix.shape, as_matrix(matrix)
        numbers, scales = (np.empty(*one) for one in self.layout(matrix).values())
        carried = Carried()
        for first, end in row_pieces(rows, columns, TILE):
            blocks = in_blocks(matrix.rows(first, end))
            integers, factors, found = self._store_blocks(
                blocks.reshape(-1, BLOCK), matrix.block_factors(first, end)
            )
            carried += found
            if not all(bool(factor.isfinite().all()) for factor in factors):
                raise ExportError(
                    f"The weight {name!r} reaches {largest_of(matrix):g}: in {self.bits} "
                    "bits it needs scales that float16 cannot hold.",
                    "Export with --matmul-kernel onnxruntime, whose scales are float32, or with "
                    "--weights float32.",
                )
            place = slice(first // TILE, -(-end // TILE))
            numbers[place] = interleaved(integers.reshape(blocks.shape).numpy(), self.bits)
            kinds = (factor.reshape(blocks.shape[:2]).numpy() for factor in factors)
            scales[place] = interleaved_scales(*kinds)
        tensors = {"numbers": numbers, "scales": scales}
        return StoredMatrix(name, self, rows, columns, tensors, carried)

    def _store_blocks(
        self, blocks: Tensor, given: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Carried]:
        """Numbers and factors of blocks [n, BLOCK], and how many are the source's own.

        Those that come out with the factors ``given`` by the source keep its numbers: exactly, or
        as nearly as factors rounded to float16 make them. Only the others are rounded anew.
        """
        if given is None:
            integers, *factors = self.round_blocks(blocks)
            return integers, factors, Carried()
        scales, minimums = given.reshape(-1, 2).half().unbind(-1)
        integers, *factors = self.numbers_with(blocks, scales, minimums)
        wide = torch.stack([factor.float() for factor in factors], dim=-1)[..., None]
        error = (self.widen(integers.float(), wide) - blocks).abs().amax(-1)
        exact, kept = error == 0, error <= self.rounding_of_factors(wide[..., 0])
        if not bool(kept.all()):
            rounded = self.round_blocks(blocks[~kept])
            for whole, part in zip((integers, *factors), rounded, strict=True):
                whole[~kept] = part
        count = Carried(int(exact.sum()) * BLOCK, int((kept & ~exact).sum()) * BLOCK)
        return integers, factors, count

    def dequantize(self, stored: StoredMatrix, first: int, end: int) -> Tensor:
        """See ``StoredFormat``."""
        assert first % TILE == 0, "tiles are not cut"
        place, rows = slice(first // TILE, -(-end // TILE)), end - first
        numbers = separated(stored.tensors["numbers"][place], rows, self.bits)
        scales = torch.from_numpy(stored.tensors["scales"][place]).float()
        # [tiles, blocks, kinds, TILE] to [rows, blocks, kinds, 1].
        factors = scales.permute(0, 3, 1, 2).reshape(-1, *scales.shape[1:3])[:rows, ..., None]
        wide = self.widen(torch.from_numpy(numbers).float(), factors)
        return wide.reshape(rows, -1)[:, : stored.columns]

    def put_product(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """A product with ``value``, and the sum with a bias, as one node."""
        numbers, scales = self._register(model, stored)
        for usage in list(value.uses()):
            node = usage.node
            total, bias = bias_after(node, stored.rows) or (None, None)
            product = self._product(node.inputs[0], stored, numbers, scales, bias)
            replace_product(node, product, total, model.graph)

    def put_table(self, model: ir.Model, value: ir.Value, stored: StoredMatrix) -> None:
        """An embedding, a head, or both in one: one tensor serves both."""
        nodes = [usage.node for usage in value.uses()]
        only_looked_up = all(node.op_type == "Gather" for node in nodes)
        numbers, scales = self._register(model, stored, only_looked_up=only_looked_up)
        for node in nodes:
            if node.op_type == "Gather":
                look_up(model, node, stored, numbers, scales)
            else:
                product = self._product(node.inputs[0], stored, numbers, scales, None)
                replace(node, product, model.graph)

    def finish_graph(self, model: ir.Model) -> None:
        """Take what stands beside the products into them, and add the body for other machines."""
        absorb_neighbors(model)
        body = ir.serde.deserialize_function(product_function())
        model.functions[body.identifier()] = body

    @staticmethod
    def finish_file(graph: onnx.GraphProto) -> None:
        """See ``StoredFormat``."""
        share_views(graph)
        name_all_outputs(graph)

    @staticmethod
    def widen_inputs(
        model: onnx.ModelProto, folder: Path, *, in_pieces: bool
    ) -> dict[str, NDArray[np.float32]]:
        """See ``StoredFormat``."""
        return widen_products(model, folder, in_pieces=in_pieces)

    def _register(
        self, model: ir.Model, stored: StoredMatrix, *, only_looked_up: bool = False
    ) -> tuple[ir.Value, ir.Value]:
        """Numbers and scales as initializers."""
        numbers, scales = stored.tensors["numbers"], stored.tensors["scales"]
        if only_looked_up:
            numbers, scales = numbers.reshape(-1, GROUP), scales.reshape(-1, 1)
        return (
            register(model, f"{stored.name}.numbers", numbers),
            register(model, f"{stored.name}.scales", scales),
        )

    def _product(
        self,
        x: ir.Value | None,
        stored: StoredMatrix,
        numbers: ir.Value,
        scales: ir.Value,
        bias: ir.Value | None,
    ) -> ir.Node:
        inputs = [x, numbers, scales] + ([] if bias is None else [bias])
        attributes = {"width": stored.rows, "bits": self.bits}
        return ir.node(QUANTIZED_MATMUL.name, inputs, attributes, domain=DOMAIN)


def float16_scales(scales: Tensor) -> Tensor:
    """Scales in float16; small ones, of few digits, are rounded up."""
    narrow = scales.half()
    short = (narrow.float() < scales * (1 - 2.0**-11)) & (scales < _NORMAL)
    following = (narrow.view(torch.int16) + 1).view(torch.float16)
    return torch.where(short, following, narrow)
