"""Formats of stored matrices by themselves, and what the check of an export says of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lively import lively_model, write_lively
from tiny import tiny_config

from allmem_exporters import AllMemForCausalLM
from allmem_exporters.errors import ExportError
from allmem_exporters.model.checkpoint import CheckpointWeights
from allmem_exporters.model.packing import PackedMatrix, fold_factors, packed_layer
from allmem_exporters.model.weights import WeightsInMemory
from allmem_exporters.onnx import export as export_module
from allmem_exporters.onnx import step_module, weight_stream
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.reference import Reference
from allmem_exporters.onnx.weight_stream import TABLES, MatrixStream
from allmem_exporters.quantization import blocks, stored_weights
from allmem_exporters.quantization.blocks import BLOCK, in_blocks
from allmem_exporters.quantization.formats import (
    KERNELS,
    TABLE,
    WEIGHTS,
    all_formats,
    stored_format,
)
from allmem_exporters.quantization.quantized_matmul import QuantizedMatMulFormat
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix
from allmem_exporters.quantization.stored_weights import Rounding, StoredWeights, stored_matrices
from allmem_ops.reference.product import TILE, weights_of
from allmem_runtime.spec import WEIGHTS_FILE

FORMATS = all_formats()
CONFIG = tiny_config(hidden_size=96)
IN_INTEGERS = [one for one in FORMATS if one.kernel is not None]
ROUNDING = [one for one in FORMATS if one.weights != "float32"]


def name_of(stored_as: StoredFormat) -> str:
    return " ".join(filter(None, (stored_as.weights, stored_as.kernel)))


every_format = pytest.mark.parametrize("stored_as", FORMATS, ids=name_of)
every_rounding_format = pytest.mark.parametrize("stored_as", ROUNDING, ids=name_of)
every_integer_format = pytest.mark.parametrize("stored_as", IN_INTEGERS, ids=name_of)


def random_matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(7))


def on_sixteen_levels(rows: int, columns: int) -> torch.Tensor:
    """Weights that had four bits before, of which one format keeps offsets."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(0, 16, (rows, columns // BLOCK, BLOCK), generator=generator).float()
    levels[..., 0], levels[..., 1] = 0, 15
    step = torch.rand(rows, columns // BLOCK, 1, generator=generator) * 0.02 + 0.001
    shift = torch.rand(rows, columns // BLOCK, 1, generator=generator) - 8
    return ((levels + shift) * step).reshape(rows, columns)


def far_from_zero(rows: int, columns: int) -> torch.Tensor:
    """Weights that all have one sign, which zero points within the range cannot follow."""
    return random_matrix(rows, columns) * 0.1 + 1.0


MATRICES = {
    "ordinary": random_matrix(64, 160),
    "odd sizes": random_matrix(37, 83),
    "one column": random_matrix(5, 1),
    "16 levels": on_sixteen_levels(48, 192),
    "far from zero": far_from_zero(33, 96),
    "small": random_matrix(48, 64) * 1e-6,
    "zeros": torch.zeros(16, 64),
}


def test_table_has_each_format_once_and_finds_it_by_its_names() -> None:
    names = [(one.weights, one.kernel) for one in FORMATS]
    assert len(set(names)) == len(names)
    assert names == [(weights, kernel) for weights, kernel, _ in TABLE]
    assert [stored_format(*pair) for pair in names] == list(FORMATS)
    assert all(one.table_format in FORMATS for one in FORMATS)
    assert set(WEIGHTS) >= {"float32", "float16", "int8", "int4"}
    assert set(KERNELS) >= {"allmem", "onnxruntime"}
    assert {stored_format(weights).kernel for weights in ("int8", "int4")} == {"allmem"}
    assert all(one.description for one in FORMATS)


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())
@every_format
def test_every_block_is_within_what_its_format_may_round(
    stored_as: StoredFormat, matrix: torch.Tensor
) -> None:
    stored = stored_as.quantize(matrix, "a matrix")
    original = in_blocks(matrix)
    error = (in_blocks(stored.dequantize()) - original).square().mean(-1).sqrt()
    assert bool((error <= stored_as.largest_error(original, stored)).all())


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())
@every_format
def test_matrix_is_read_in_pieces_as_it_is_read_whole(
    stored_as: StoredFormat, matrix: torch.Tensor
) -> None:
    stored = stored_as.quantize(matrix, "a matrix")
    whole = stored.dequantize()
    pieces = [
        stored.dequantize(first, min(first + TILE, len(matrix)))
        for first in range(0, len(matrix), TILE)
    ]
    assert torch.equal(torch.cat(pieces), whole)
    assert whole.dtype == torch.float32 and whole.shape == matrix.shape


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES.keys())
@every_format
def test_size_of_the_pieces_and_the_order_in_memory_change_no_bit(
    stored_as: StoredFormat, matrix: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = stored_as.quantize(matrix, "a matrix").tensors
    monkeypatch.setattr(blocks, "_BLOCKS_AT_ONCE", 1)
    turned = matrix.T.contiguous().T
    for found in (stored_as.quantize(one, "a matrix").tensors for one in (matrix, turned)):
        assert found.keys() == at_once.keys()
        assert all(np.array_equal(found[part], at_once[part]) for part in found)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_dequantizing_in_float32_gives_what_the_reference_gives_in_float64(weights: str) -> None:
    matrix = random_matrix(40, 83)
    stored = stored_format(weights, "allmem").quantize(matrix, "a matrix")
    assert isinstance(stored.format, QuantizedMatMulFormat)
    numbers, scales = stored.tensors["numbers"], stored.tensors["scales"]
    truth = weights_of(numbers, scales, stored.rows, stored.format.bits)[:, : stored.columns]
    np.testing.assert_array_equal(stored.dequantize().numpy(), truth.astype(np.float32))


def stored_of(model: AllMemForCausalLM, stored_as: StoredFormat) -> dict[str, StoredMatrix]:
    return stored_matrices(MatrixStream(WeightsInMemory(model)), stored_as, TABLES)


def take(model: AllMemForCausalLM, stored: dict[str, StoredMatrix]) -> Rounding:
    """Read every stored weight as the check of an export does."""
    taken = StoredWeights(stored)
    reference = Reference(WeightsInMemory(model), taken)
    for index in range(CONFIG.num_hidden_layers):
        reference.layer(index)
    for table in ("embedding", "head"):
        list(reference.table_pieces(table))
    return taken.rounding()


def test_packed_matrices_hold_every_matrix_of_a_layer_and_give_it_back() -> None:
    layer = lively_model(CONFIG).model.layers[1]
    fold_factors(layer)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    copies = {name: matrix.whole() for name, matrix in packed_layer(layer).items()}
    with torch.no_grad():
        for matrix in packed_layer(layer).values():
            for module in matrix.modules:
                module.weight.zero_()
    for name, matrix in packed_layer(layer).items():
        for first in range(0, matrix.shape[0], 7):  # across the modules' borders
            matrix.write(first, copies[name][first : first + 7])
    after = layer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert sum(len(matrix.modules) for matrix in packed_layer(layer).values()) == 11


@every_rounding_format
def test_layer_takes_the_weights_that_are_stored(stored_as: StoredFormat) -> None:
    model = lively_model(CONFIG)
    stored = stored_of(model, stored_as)
    found = take(model, stored)
    assert 0.0 < found.worst <= 1.0 and found.worst_name in stored
    assert found.matrices == len(stored) == 1 + 4 * CONFIG.num_hidden_layers
    assert found.nbytes == sum(one.nbytes for one in stored.values())
    layer = Reference(WeightsInMemory(model), StoredWeights(stored)).layer(1)
    for product, matrix in packed_layer(layer).items():
        assert torch.equal(matrix.whole(), stored[f"layers.1.{product}.weight"].dequantize())
    assert bool((layer.allmem.alpha == 1).all())


def project(layer: torch.nn.Module) -> PackedMatrix:
    return packed_layer(layer)["project"]


def keys_first(layer: torch.nn.Module) -> torch.Tensor:
    query, key, *rest = project(layer).weights()
    return torch.cat([key, query, *rest])


def values_of_memory_first(layer: torch.nn.Module) -> torch.Tensor:
    return torch.cat(project(layer).weights()[::-1])


def branches_turned(layer: torch.nn.Module) -> torch.Tensor:
    return torch.cat(packed_layer(layer)["back"].weights()[::-1], dim=1)


def without_alpha(layer: torch.nn.Module) -> torch.Tensor:
    return replace(packed_layer(layer)["back"], factors=()).whole()


def along_the_other_axis(layer: torch.nn.Module) -> torch.Tensor:
    return packed_layer(layer)["down"].whole().T.reshape(packed_layer(layer)["down"].shape)


WRONG = {
    "keys before queries": ("project", keys_first),
    "memory before attention": ("project", values_of_memory_first),
    "branches turned": ("back", branches_turned),
    "alpha forgotten": ("back", without_alpha),
    "other axis": ("down", along_the_other_axis),
}


@pytest.mark.parametrize(("part", "packed"), WRONG.values(), ids=WRONG.keys())
@every_rounding_format
def test_matrix_that_was_packed_otherwise_is_refused_by_name(
    stored_as: StoredFormat, part: str, packed: object
) -> None:
    model = lively_model(CONFIG)
    name = f"layers.1.{part}.weight"
    assert callable(packed)
    stored = stored_of(model, stored_as)
    stored[name] = stored_as.quantize(packed(model.model.layers[1]), name)
    with pytest.raises(ExportError, match=rf"'layers\.1\.{part}\.weight' as it is stored is off"):
        take(model, stored)


def halves_swapped(tensors: dict[str, np.ndarray]) -> None:
    tensors["numbers"] = tensors["numbers"] << 4 | tensors["numbers"] >> 4


def outputs_shifted(tensors: dict[str, np.ndarray]) -> None:
    tensors["scales"] = np.roll(tensors["scales"], 1, axis=-1)


def one_number_changed(tensors: dict[str, np.ndarray]) -> None:
    tensors["numbers"] = tensors["numbers"].copy()
    tensors["numbers"].flat[5] ^= 0x88


def scales_a_quarter_larger(tensors: dict[str, np.ndarray]) -> None:
    tensors["scales"] = (tensors["scales"] * 1.25).astype(tensors["scales"].dtype)


LAYOUTS = (halves_swapped, outputs_shifted, one_number_changed, scales_a_quarter_larger)


@pytest.mark.parametrize("damage", LAYOUTS, ids=lambda one: one.__name__)
@every_integer_format
def test_numbers_and_scales_in_another_layout_are_refused_by_name(
    stored_as: StoredFormat, damage: object
) -> None:
    model = lively_model(CONFIG)
    stored = stored_of(model, stored_as)
    assert callable(damage)
    damage(stored["layers.0.gate_up.weight"].tensors)
    with pytest.raises(ExportError, match=r"'layers\.0\.gate_up\.weight' as it is stored is off"):
        take(model, stored)


@every_rounding_format
def test_weight_that_is_no_number_is_refused(stored_as: StoredFormat) -> None:
    model = lively_model(CONFIG)
    stored = stored_of(model, stored_as)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 5] = float("nan")
    with pytest.raises(ExportError, match=r"layers\.0\.down\.weight"):
        take(model, stored)


def test_missing_matrix_and_another_shape_are_refused() -> None:
    model = lively_model(CONFIG)
    stored = stored_of(model, stored_format("int8"))
    one = stored["layers.1.down.weight"]
    stored[one.name] = replace(one, columns=one.columns - 1)
    with pytest.raises(ExportError, match=r"'layers\.1\.down\.weight' is stored with"):
        take(lively_model(CONFIG), stored)
    del stored[one.name]
    with pytest.raises(ExportError, match=r"same matrices: 'layers\.1\.down\.weight'"):
        take(lively_model(CONFIG), stored)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lively(tmp_path_factory.mktemp("formats") / "checkpoint", CONFIG)


def wrongly_packed(layer: torch.nn.Module) -> dict[str, PackedMatrix]:
    """The values of attention before its keys."""
    found = packed_layer(layer)
    query, key, value, *rest = found["project"].modules
    return {**found, "project": replace(found["project"], modules=(query, value, key, *rest))}


@every_rounding_format
def test_check_refuses_a_graph_that_is_packed_otherwise_than_the_model(
    checkpoint: Path, tmp_path: Path, stored_as: StoredFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_stream, "packed_layer", wrongly_packed)
    with pytest.raises(ExportError, match=r"'layers\.0\.project\.weight' as it is stored is off"):
        export(
            checkpoint, tmp_path / "m", weights=stored_as.weights, matmul_kernel=stored_as.kernel
        )


@every_format
def test_check_refuses_an_order_that_the_operators_do_not_expect(
    checkpoint: Path, tmp_path: Path, stored_as: StoredFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (step_module, weight_stream, stored_weights):
        monkeypatch.setattr(place, "packed_layer", wrongly_packed)
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export(
            checkpoint, tmp_path / "m", weights=stored_as.weights, matmul_kernel=stored_as.kernel
        )


@every_rounding_format
def test_check_refuses_what_was_damaged_on_the_way_to_the_file(
    checkpoint: Path, tmp_path: Path, stored_as: StoredFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export_module.write_folder

    def damaged(graph: object, config: object, source: object, folder: Path, *rest: object,
                **options: object) -> object:  # fmt: skip
        manifest = write(graph, config, source, folder, *rest, **options)
        data = np.fromfile(folder / WEIGHTS_FILE, np.uint8)
        data[len(data) // 4 : len(data) // 2] ^= 0x11
        data.tofile(folder / WEIGHTS_FILE)
        return manifest

    monkeypatch.setattr(export_module, "write_folder", damaged)
    with pytest.raises(ExportError, match="differs from|is not finite|as it is stored is"):
        export(
            checkpoint, tmp_path / "m", weights=stored_as.weights, matmul_kernel=stored_as.kernel
        )
    assert not (tmp_path / "m").exists()


@every_rounding_format
def test_export_stores_each_matrix_once_and_reports_its_rounding(
    checkpoint: Path, tmp_path: Path, stored_as: StoredFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[str] = Counter()
    for kind in {type(stored_as), type(stored_as.table_format)}:
        quantize = kind.quantize

        def counted(self: StoredFormat, matrix: torch.Tensor, name: str,
                    quantize: object = quantize) -> StoredMatrix:  # fmt: skip
            made[name] += 1
            assert callable(quantize)
            return quantize(self, matrix, name)

        monkeypatch.setattr(kind, "quantize", counted)
    lines: list[str] = []
    options = {"weights": stored_as.weights, "products": stored_as.kernel}
    export(checkpoint, tmp_path / "m", report=lines.append, **options)
    assert made == Counter(MatrixStream(CheckpointWeights(checkpoint)).keys())
    (line,) = [line for line in lines if line.startswith("stored weights")]
    assert stored_as.description in line and f"{len(made)} matrices" in line
