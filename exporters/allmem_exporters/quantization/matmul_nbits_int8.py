"""Eight bits for MatMulNBits: scale x (number - 128). Holds Q8_0 of GGUF without loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from allmem_exporters.quantization.blocks import BLOCK, Matrix
from allmem_exporters.quantization.matmul_nbits import MatMulNBitsFormat, Rounded
from allmem_exporters.quantization.scale_search import symmetric
from allmem_exporters.quantization.stored_format import StoredMatrix


class MatMulNBitsInt8(MatMulNBitsFormat):
    """Symmetric, with the best of several scales."""

    weights = "int8"
    description = "8 bits, a float32 scale for 32 weights"
    bits = 8

    def rounding(self, matrix: Matrix) -> Callable[[Tensor], Rounded]:
        """See ``MatMulNBitsFormat``."""
        return _round_rows

    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """Half a step, where the largest weight is 127 steps."""
        return blocks.abs().amax(-1) / 254 * (1 + 2.0**-10) + 2.0**-126


FORMAT = MatMulNBitsInt8()


def _round_rows(blocks: Tensor) -> Rounded:
    numbers, scales = symmetric(blocks.reshape(-1, BLOCK), lambda scales: scales)
    return numbers.reshape(blocks.shape), scales.reshape(blocks.shape[:2])
