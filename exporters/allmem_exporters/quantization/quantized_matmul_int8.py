"""Eight bits for QuantisedMatMul: scale x (number - 128). Holds Q8_0 of GGUF without loss."""

from __future__ import annotations

import torch
from torch import Tensor

from allmem_exporters.quantization.quantized_matmul import QuantizedMatMulFormat, float16_scales
from allmem_exporters.quantization.scale_search import levels_of, symmetric
from allmem_exporters.quantization.stored_format import StoredMatrix


class QuantizedMatMulInt8(QuantizedMatMulFormat):
    """Symmetric, with the best of several scales."""

    weights = "int8"
    description = "8 bits, a float16 scale for 32 weights"
    bits = 8
    kinds = 1

    def round_blocks(self, blocks: Tensor) -> tuple[Tensor, ...]:
        """See ``QuantizedMatMulFormat``."""
        return symmetric(blocks, float16_scales)

    def numbers_with(self, blocks: Tensor, scales: Tensor, minimums: Tensor) -> tuple[Tensor, ...]:
        """See ``QuantizedMatMulFormat``; the minimum follows from the scale."""
        levels = levels_of(blocks, scales.float()[:, None], torch.empty_like(blocks))
        return levels.nan_to_num_(0).add_(128).to(torch.uint8), scales.clone()

    def widen(self, numbers: Tensor, factors: Tensor) -> Tensor:
        """See ``QuantizedMatMulFormat``."""
        return numbers.sub_(128).mul_(factors[..., 0, :])

    def largest_error(self, blocks: Tensor, stored: StoredMatrix) -> Tensor:
        """Half a step, where the largest weight is 127 steps; scales have eleven digits."""
        return blocks.abs().amax(-1) / 254 * (1 + 2.0**-10) + 2.0**-24


FORMAT = QuantizedMatMulInt8()
