"""Exports in integers: what is rounded and what is not, and how honest their check is.

What only exports with our own products have is in test_export_quantized_matmul.py, what a format
has without a graph in test_export_quantized_formats.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from cutting import LARGEST, token_by_token_error
from lively import FAMILIES, lively_model, write_lively
from tiny import tiny_config, write_tiny_checkpoint

from allmem_exporters import AllMemConfig
from allmem_exporters.errors import ExportError
from allmem_exporters.model.checkpoint import CheckpointWeights
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.float_noise import relative_rms
from allmem_exporters.onnx.validate import validate
from allmem_exporters.quantization.blocks import BLOCK
from allmem_exporters.quantization.formats import KERNELS, stored_format
from allmem_exporters.quantization.matmul_nbits import offset_blocks
from allmem_exporters.quantization.matmul_nbits_int4 import block_sums
from allmem_exporters.quantization.stored_format import StoredMatrix
from allmem_runtime.config import Manifest
from allmem_runtime.info import model_info, model_lines
from allmem_runtime.spec import GRAPH_FILE, MANIFEST_FILE, WEIGHTS_FILE

pytestmark = pytest.mark.usefixtures("traced_once")

LENGTH = 90


def graph_of(folder: Path) -> onnx.GraphProto:
    return onnx.load(folder / GRAPH_FILE, load_external_data=False).graph


def nodes_of(folder: Path, kind: str) -> list[onnx.NodeProto]:
    return [node for node in graph_of(folder).node if node.op_type == kind]


def attributes_of(node: onnx.NodeProto) -> dict[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}


def place_of(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def on_sixteen_levels(rows: int, columns: int) -> torch.Tensor:
    """Weights as Q4_1 holds them: levels and a lowest value of its own for each block."""
    torch.manual_seed(3)
    levels = torch.randint(0, 16, (rows, columns // BLOCK, BLOCK)).float()
    levels[..., 0], levels[..., 1] = 0, 15
    step = torch.rand(rows, columns // BLOCK, 1) * 0.02 + 0.001
    lowest = -7.5 * step + (torch.rand_like(step) - 0.5) * step
    return (levels * step + lowest).reshape(rows, columns)


def with_nbits(matrix: torch.Tensor | np.ndarray, bits: int) -> StoredMatrix:
    """As MatMulNBits takes it."""
    return stored_format(f"int{bits}", "onnxruntime").quantize(torch.as_tensor(matrix), "a matrix")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with tied embeddings and everything alive."""
    return write_lively(tmp_path_factory.mktemp("quantized") / "checkpoint", tiny_config())


@pytest.fixture(scope="module", params=["int8", "int4"])
def exported(request: pytest.FixtureRequest, checkpoint: Path) -> tuple[str, Path]:
    """(storage, its export with MatMulNBits); copy the folder before changing anything."""
    folder = checkpoint.parent / request.param
    export(checkpoint, folder, weights=request.param, matmul_kernel="onnxruntime", check=False)
    return request.param, folder


@pytest.mark.parametrize("products", KERNELS)
@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES.keys())
def test_quantized_graph_computes_what_pytorch_computes(
    tmp_path: Path, config: AllMemConfig, storage: str, products: str
) -> None:
    checkpoint = write_lively(tmp_path / "checkpoint", config)
    lines: list[str] = []
    out = tmp_path / "model"
    export(checkpoint, out, weights=storage, matmul_kernel=products, report=lines.append)
    kind = {"allmem": "QuantisedMatMul", "onnxruntime": "MatMulNBits"}[products]
    assert {n.op_type for n in graph_of(out).node} & {"QuantisedMatMul", "MatMulNBits"} == {kind}
    checked = [line.split("  ")[0] for line in lines if "logits" in line]
    assert checked.count("library") == checked.count("function bodies") == 2
    assert checked.count("8-bit inputs") == 1, "and once as it is shipped"


def test_weights_of_sixteen_levels_pass_the_check_with_offsets(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "checkpoint", tiny_config(hidden_size=64))
    model = lively_model(tiny_config(hidden_size=64))
    with torch.no_grad():
        for layer in model.model.layers:
            for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
                linear.weight.copy_(on_sixteen_levels(*linear.weight.shape))
    model.save_pretrained(tmp_path / "checkpoint")
    out = tmp_path / "model"
    export(tmp_path / "checkpoint", out, weights="int4", matmul_kernel="onnxruntime")
    wide = [n for n in nodes_of(tmp_path / "model", "MatMulNBits") if "gate_up" in n.input[1]]
    assert [attributes_of(node)["K"] for node in wide] == [64 + BLOCK] * 2


def test_sixteen_levels_are_kept_although_their_zero_points_are_no_whole_numbers() -> None:
    matrix = on_sixteen_levels(48, 192)
    kept = with_nbits(matrix, 4)
    assert offset_blocks(kept) == 1
    # Of a step of 16 levels, offsets rounded to 4 bits leave a thirtieth; whole zero points leave
    # a quarter.
    assert relative_rms(kept.dequantize().numpy(), matrix.numpy()) < 0.006


def test_eight_bits_hold_weights_of_q8_0_without_loss() -> None:
    generator = np.random.default_rng(1)
    levels = generator.integers(-127, 128, (16, 4, BLOCK))
    levels[..., 5] = 127
    scales = generator.uniform(1e-3, 1e-2, (16, 4, 1)).astype(np.float16).astype(np.float32)
    matrix = (levels * scales).astype(np.float32).reshape(16, -1)
    assert relative_rms(with_nbits(matrix, 8).dequantize().numpy(), matrix) < 1e-6


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("before", "left"), [("16 levels", 0.35), ("any", 0.85)])
def test_eight_bits_round_with_the_best_of_several_scales(
    kernel: str, before: str, left: float
) -> None:
    generator = torch.Generator().manual_seed(5)
    matrix = torch.randn(64, 192, generator=generator)
    matrix = on_sixteen_levels(64, 192) if before == "16 levels" else matrix
    blocks = matrix.reshape(-1, BLOCK)
    scales = blocks.abs().amax(-1, keepdim=True) / 127
    plain = (torch.round(blocks / scales) * scales - blocks).square().sum(-1)

    found = stored_format("int8", kernel).quantize(matrix, "a matrix").dequantize()
    found = found.reshape(-1, BLOCK)
    error = (found - blocks).square().sum(-1)
    assert float(error.sum() / plain.sum()) < left
    if (
        kernel == "onnxruntime"
    ):  # the other's scales, of float16, are near the plain ones, not equal
        assert bool((error <= plain * 1.001).all()), "no block is worse off"


@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.006), (4, 0.09)])
def test_rounding_is_as_fine_as_its_bits(bits: int, allowed: float) -> None:
    matrix = np.random.default_rng(2).normal(size=(64, 160)).astype(np.float32)
    assert relative_rms(with_nbits(matrix, bits).dequantize().numpy(), matrix) < allowed


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_zeros_stay_zeros(bits: int) -> None:
    matrix = np.random.default_rng(2).normal(size=(4, 64)).astype(np.float32)
    matrix[1] = 0.0
    assert not with_nbits(matrix, bits).dequantize()[1].any()


def test_sums_of_blocks_are_exact() -> None:
    x = np.random.default_rng(4).normal(size=96).astype(np.float32)
    sums = block_sums(96).dequantize().numpy() @ x
    np.testing.assert_allclose(sums[:3], x.reshape(3, BLOCK).sum(1), rtol=1e-5)
    assert not sums[3:].any()


def test_only_matrices_of_the_decoder_and_of_the_memory_s_input_are_whole_numbers(
    exported: tuple[str, Path],
) -> None:
    storage, folder = exported
    graph = graph_of(folder)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    bits = {n.input[1]: attributes_of(n)["bits"] for n in nodes_of(folder, "MatMulNBits")}
    for layer in range(2):
        for part in ("project", "back", "gate_up", "down"):
            wanted = 8 if storage == "int8" else 4
            assert bits[f"layers.{layer}.{part}.weight.numbers"] == wanted
    ours = [node for node in graph.node if node.domain == "ai.allmem"]
    for node in ours:
        for name in node.input:
            assert types.get(name, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT
    controls = [node for node in nodes_of(folder, "MatMul") if "control" in node.input[1]]
    assert len(controls) == 2, "learning rates, momentum and gates"
    assert all(types[node.input[1]] == onnx.TensorProto.FLOAT for node in controls)
    norms = nodes_of(folder, "SkipSimplifiedLayerNormalization")
    assert all(types[node.input[2]] == onnx.TensorProto.FLOAT for node in norms)


def test_embedding_and_head_are_one_tensor_in_the_file(exported: tuple[str, Path]) -> None:
    _, folder = exported
    tensors = {tensor.name: tensor for tensor in graph_of(folder).initializer}
    (look_up,) = nodes_of(folder, "GatherBlockQuantized")
    (head,) = [n for n in nodes_of(folder, "MatMulNBits") if "embedding" in n.input[1]]
    table, blocks = tensors[look_up.input[0]], tensors[head.input[1]]
    assert place_of(table) == place_of(blocks) != {}
    assert look_up.input[2] == head.input[2], "scales"
    assert np.prod(table.dims) == np.prod(blocks.dims) == int(place_of(table)["length"])


def test_untied_embedding_and_head_are_two_tensors(tmp_path: Path) -> None:
    checkpoint = write_lively(tmp_path / "c", FAMILIES["qwen3, untied, other head size"])
    out = tmp_path / "model"
    export(checkpoint, out, weights="int4", matmul_kernel="onnxruntime", check=False)
    tensors = {tensor.name: tensor for tensor in graph_of(tmp_path / "model").initializer}
    (look_up,) = nodes_of(tmp_path / "model", "GatherBlockQuantized")
    (head,) = [n for n in nodes_of(tmp_path / "model", "MatMulNBits") if "head" in n.input[1]]
    assert place_of(tensors[look_up.input[0]]) != place_of(tensors[head.input[1]])


@pytest.mark.parametrize("products", KERNELS)
def test_biases_need_no_node_of_their_own(tmp_path: Path, products: str) -> None:
    config = FAMILIES["llama, biases, gelu, one memory head"]
    checkpoint = write_lively(tmp_path / "c", config)
    export(checkpoint, tmp_path / "m", weights="int4", matmul_kernel=products, check=False)
    sums = {name for node in nodes_of(tmp_path / "m", "Add") for name in node.input}
    assert not [name for name in sums if name.endswith("bias") and "control" not in name]


def damaged(folder: Path, out: Path, part: str) -> Path:
    """A copy in which half of a tensor of the first layer is changed."""
    copy = Path(shutil.copytree(folder, out))
    name = f"layers.0.project.weight.{part}"
    (tensor,) = [t for t in graph_of(copy).initializer if t.name == name]
    place = place_of(tensor)
    if not place:
        pytest.fail(f"{name} is not in the file of weights")
    first, length = int(place["offset"]), int(place["length"])
    data = np.fromfile(copy / WEIGHTS_FILE, np.uint8)
    half = data[first + length // 2 : first + length]  # keys, values and the memory's inputs
    if part == "scales":
        half.view(np.float16 if tensor.data_type == onnx.TensorProto.FLOAT16 else np.float32)[
            :
        ] *= 1.05
    else:
        half ^= 0x11
    data.tofile(copy / WEIGHTS_FILE)
    return copy


@pytest.mark.parametrize("products", KERNELS)
@pytest.mark.parametrize("part", ["numbers", "scales"])
@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_check_notices_a_damaged_weight(
    tmp_path: Path, storage: str, part: str, products: str
) -> None:
    config = tiny_config(hidden_size=192)
    checkpoint = write_lively(tmp_path / "checkpoint", config)
    export(checkpoint, tmp_path / "model", weights=storage, matmul_kernel=products, check=False)
    weights = CheckpointWeights(checkpoint)
    validate(tmp_path / "model", weights, storage=storage, matmul_kernel=products)
    folder = damaged(tmp_path / "model", tmp_path / "damaged", part)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*allowed are 2e-03"):
        validate(folder, weights, storage=storage, matmul_kernel=products)


def test_manifest_and_info_say_the_type_of_the_weights(exported: tuple[str, Path]) -> None:
    storage, folder = exported
    manifest = Manifest.from_json((folder / MANIFEST_FILE).read_text(), MANIFEST_FILE)
    assert manifest.weights == storage
    assert any(f", {storage};" in line for line in model_lines(model_info(folder)))


def test_split_pieces_stay_equal(exported: tuple[str, Path], checkpoint: Path) -> None:
    _, folder = exported
    assert token_by_token_error(folder, checkpoint, LENGTH) < LARGEST


def test_command_exports_whole_numbers(checkpoint: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from allmem_exporters.commands.export import export as command

    arguments = [str(checkpoint), str(tmp_path / "model"), "--weights", "int4", "--no-check"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "model" / MANIFEST_FILE).read_text())["weights"] == "int4"
