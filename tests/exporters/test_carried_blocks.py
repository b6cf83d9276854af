"""Blocks of a GGUF file whose scales float16 holds only rounded keep their numbers."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind

from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.stored_format import Carried
from allmem_exporters.sources.gguf_blocks import block_factors
from allmem_exporters.sources.gguf_file import GgufFile

ROWS, COLUMNS = 32, 512


class Stored:
    """A matrix of a file, as the export reads it."""

    shape = (ROWS, COLUMNS)

    def __init__(self, path: Path) -> None:
        self.file = GgufFile(path)

    def rows(self, first: int, end: int) -> torch.Tensor:
        return torch.from_numpy(self.file.values("w", first, end))

    def block_factors(self, first: int, end: int) -> torch.Tensor | None:
        return block_factors(self.file, "w", first, end)


def write_q4_k(path: Path) -> None:
    """Random numbers, scales and minimums."""
    random = np.random.default_rng(5)
    blocks = random.integers(0, 256, (ROWS, COLUMNS // 256, 144), dtype=np.uint8)
    shared = (random.uniform(0.5, 1, (*blocks.shape[:2], 2)) / 100).astype(np.float16)
    blocks[..., :4] = shared.view(np.uint8).reshape(*blocks.shape[:2], 4)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w", blocks.reshape(ROWS, -1), raw_dtype=Kind.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_scales_of_q4_k_are_those_that_make_its_weights(tmp_path: Path) -> None:
    write_q4_k(tmp_path / "file.gguf")
    matrix = Stored(tmp_path / "file.gguf")
    factors = matrix.block_factors(0, ROWS)
    assert factors is not None
    blocks = matrix.rows(0, ROWS).reshape(ROWS, -1, 32)
    scales, minimums = factors.unbind(-1)
    numbers = ((blocks - minimums[..., None]) / scales.clamp(min=1e-9)[..., None]).round()
    assert numbers.min() == 0 and numbers.max() == 15
    torch.testing.assert_close(
        numbers * scales[..., None] + minimums[..., None], blocks, rtol=0, atol=1e-6
    )


def test_q4_k_keeps_its_numbers(tmp_path: Path) -> None:
    write_q4_k(tmp_path / "file.gguf")
    matrix = Stored(tmp_path / "file.gguf")
    weights = matrix.rows(0, ROWS)
    kept, anew = (stored_format("int4").quantize(one, "w") for one in (matrix, weights))
    assert kept.carried.exact + kept.carried.rounded == ROWS * COLUMNS
    assert anew.carried == Carried()
    error, before = ((one.dequantize() - weights).square().mean().sqrt() for one in (kept, anew))
    assert error / weights.square().mean().sqrt() < 2**-11, "what float16 takes from the factors"
    assert error < before / 10


def test_q4_k_in_eight_bits_is_rounded_anew(tmp_path: Path) -> None:
    write_q4_k(tmp_path / "file.gguf")
    matrix = Stored(tmp_path / "file.gguf")
    found, anew = (
        stored_format("int8").quantize(one, "w") for one in (matrix, matrix.rows(0, ROWS))
    )
    assert found.carried.rounded == 0
    errors = ((one.dequantize() - matrix.rows(0, ROWS)).abs() for one in (found, anew))
    assert bool((next(errors) <= next(errors)).all()), "a block that is not rounded anew is exact"
