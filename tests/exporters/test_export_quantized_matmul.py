"""Exports whose integers are multiplied by our own QuantisedMatMul, as is the default."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from cutting import LARGEST, token_by_token_error
from lively import FAMILIES, write_lively
from native_library import needs_library
from tiny import tiny_config

from allmem_exporters import AllMemConfig
from allmem_exporters.commands.export import export as command
from allmem_exporters.errors import ExportError
from allmem_exporters.model.modeling import pieces
from allmem_exporters.model.state import state_spec
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.float_noise import relative_rms
from allmem_exporters.onnx.graph_runner import GraphRunner
from allmem_exporters.quantization.blocks import BLOCK
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.quantized_matmul import QuantizedMatMulFormat
from allmem_exporters.quantization.stored_format import StoredMatrix
from allmem_ops.schema import DOMAIN
from allmem_runtime import load
from allmem_runtime.config import Manifest
from allmem_runtime.info import model_info, model_lines
from allmem_runtime.spec import GRAPH_FILE, LOGITS, MANIFEST_FILE

pytestmark = pytest.mark.usefixtures("traced_once")

LENGTH = 90
PRODUCT = "QuantisedMatMul"


def model_of(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / GRAPH_FILE, load_external_data=False)


def nodes_of(folder: Path, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model_of(folder).graph.node if node.op_type == kind]


def attributes_of(node: onnx.NodeProto) -> dict[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}


def place_of(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def manifest_of(folder: Path) -> Manifest:
    return Manifest.from_json((folder / MANIFEST_FILE).read_text(), MANIFEST_FILE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with tied embeddings, whose parts are large enough to lie in the file."""
    folder = tmp_path_factory.mktemp("products") / "checkpoint"
    return write_lively(folder, tiny_config(hidden_size=96))


@pytest.fixture(scope="module", params=["int8", "int4"])
def exported(request: pytest.FixtureRequest, checkpoint: Path) -> tuple[str, Path]:
    """(storage, its export); copy the folder before changing anything."""
    folder = checkpoint.parent / request.param
    export(checkpoint, folder, weights=request.param, check=False)
    return request.param, folder


def on_levels(rows: int, columns: int, bits: int) -> torch.Tensor:
    """Weights as Q4_1 or Q8_0 holds them, scales and minimums being float16."""
    torch.manual_seed(3)
    most = 15 if bits == 4 else 127
    levels = torch.randint(0 if bits == 4 else -127, most + 1, (rows, columns // BLOCK, BLOCK))
    levels = levels.float()
    levels[..., 0], levels[..., 1] = 0, most
    step = (torch.rand(rows, columns // BLOCK, 1) * 0.02 + 0.001).half().float()
    lowest = (-7 * step + torch.rand_like(step) * step).half().float() if bits == 4 else 0.0
    return (levels * step + lowest).reshape(rows, columns)


def quantized(matrix: torch.Tensor | np.ndarray, bits: int, name: str = "a matrix") -> StoredMatrix:
    """As QuantisedMatMul takes it."""
    return stored_format(f"int{bits}", "allmem").quantize(torch.as_tensor(matrix), name)


@pytest.mark.parametrize("bits", [4, 8])
def test_what_was_quantized_before_is_kept(bits: int) -> None:
    matrix = on_levels(48, 192, bits)
    # All that is lost are the last bits of float32.
    assert relative_rms(quantized(matrix, bits).dequantize().numpy(), matrix.numpy()) < 1e-6


@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.006), (4, 0.09)])
@pytest.mark.parametrize("columns", [160, 33, 1])
def test_rounding_is_as_fine_as_its_bits(columns: int, bits: int, allowed: float) -> None:
    matrix = np.random.default_rng(2).normal(size=(64, columns)).astype(np.float32)
    stored = quantized(matrix, bits)
    assert isinstance(stored.format, QuantizedMatMulFormat) and stored.format.bits == bits
    found = stored.dequantize().numpy()
    assert found.shape == matrix.shape
    assert relative_rms(found, matrix) < allowed


@pytest.mark.parametrize("size", [1e-4, 1e-5, 1e-6, 1e-8])
@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.006), (4, 0.09)])
def test_small_weights_lose_no_more_than_a_step_of_float16(
    bits: int, allowed: float, size: float
) -> None:
    matrix = np.random.default_rng(2).normal(size=(64, 96)).astype(np.float32) * np.float32(size)
    lost = quantized(matrix, bits).dequantize().numpy() - matrix
    # The least float16 is a step of scales and minimums below which nothing can be told apart.
    assert np.sqrt(np.mean(lost**2)) < allowed * size + 2.0**-24


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_zeros_stay_zeros(bits: int) -> None:
    matrix = np.random.default_rng(2).normal(size=(4, 64)).astype(np.float32)
    matrix[1] = 0.0
    assert not quantized(matrix, bits).dequantize()[1].any()


@pytest.mark.parametrize("value", [1e8, -1e8, float("nan"), float("inf")])
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_beyond_float16_are_refused_by_name_and_with_a_remedy(
    bits: int, value: float
) -> None:
    matrix = np.random.default_rng(2).normal(size=(4, 64)).astype(np.float32)
    matrix[2, 40] = value
    with pytest.raises(ExportError, match=r"'layers\.3\.down' reaches .* float16") as caught:
        quantized(matrix, bits, "layers.3.down")
    assert "--matmul-kernel onnxruntime" in caught.value.hint


def test_export_names_a_weight_that_its_scales_cannot_hold(tmp_path: Path) -> None:
    from allmem_exporters import AllMemForCausalLM

    checkpoint = write_lively(tmp_path / "checkpoint", tiny_config())
    model = AllMemForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = 1e9
    model.save_pretrained(checkpoint)
    with pytest.raises(ExportError, match=r"layers\.1\.down\.weight"):
        export(checkpoint, tmp_path / "model", weights="int8", check=False)
    assert not (tmp_path / "model").exists()


def test_products_have_the_bits_asked_for_and_the_table_has_eight(
    exported: tuple[str, Path],
) -> None:
    storage, folder = exported
    bits = {node.input[1]: attributes_of(node)["bits"] for node in nodes_of(folder, PRODUCT)}
    for layer in range(2):
        for part in ("project", "back", "gate_up", "down"):
            wanted = 8 if storage == "int8" else 4
            assert bits.pop(f"layers.{layer}.{part}.weight.numbers") == wanted
    assert list(bits.values()) == [8]
    controls = [node for node in nodes_of(folder, "MatMul") if "control" in node.input[1]]
    assert len(controls) == 2, "learning rates, momentum and gates stay float32"
    assert not nodes_of(folder, "MatMulNBits")
    assert not nodes_of(folder, "GatherBlockQuantized")


LAYER = {
    PRODUCT: 4, "SkipSimplifiedLayerNormalization": 2, "MatMul": 1, "Add": 1,
    "SlidingWindowAttention": 1, "TTTMemory": 1,
}  # fmt: skip
"""The nodes of a layer, the control's product and its bias among them."""


def layer_nodes(folder: Path) -> Counter[str]:
    """Nodes between the first layer's norm and the second's."""
    nodes = list(model_of(folder).graph.node)
    norms = [i for i, n in enumerate(nodes) if n.op_type == "SkipSimplifiedLayerNormalization"]
    return Counter(node.op_type for node in nodes[norms[0] : norms[2]])


def test_layer_has_ten_nodes_since_products_take_what_stands_beside_them(
    exported: tuple[str, Path],
) -> None:
    _, folder = exported
    assert layer_nodes(folder) == LAYER
    by_part = {node.input[1].split(".")[2]: node for node in nodes_of(folder, PRODUCT)
               if "layers.0." in node.input[1]}  # fmt: skip
    values = {part: {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
              for part, node in by_part.items()}  # fmt: skip
    config = manifest_of(folder)
    heads = config.backbone.query_heads + 2 * config.backbone.kv_heads
    assert values["project"]["first_width"] == heads * config.backbone.head_dim
    assert values["down"]["input_gate"] == b"silu"
    assert by_part["back"].input[4]
    assert all(len(node.output) == 2 for node in by_part.values()), "function bodies need both"


def test_product_of_the_head_writes_the_logits_itself(exported: tuple[str, Path]) -> None:
    graph = model_of(exported[1]).graph
    (logits,) = [node for node in graph.node if LOGITS in node.output]
    assert logits.op_type == PRODUCT
    (wanted,) = [node for node in graph.node if logits.input[0] in node.output]
    assert wanted.op_type == "Gather"


def test_other_activations_than_silu_keep_their_nodes_and_lose_their_split(tmp_path: Path) -> None:
    checkpoint = write_lively(tmp_path / "c", FAMILIES["llama, gelu_pytorch_tanh"])
    export(checkpoint, tmp_path / "model", weights="int4", check=False)
    assert layer_nodes(tmp_path / "model") == {**LAYER, "Gelu": 1, "Mul": 1}


@pytest.mark.parametrize(
    "options",
    [{"weights": "float32"}, {"weights": "int4", "products": "onnxruntime"}],
    ids=["float32", "onnxruntime"],
)
def test_products_of_others_keep_the_nodes_beside_them(
    checkpoint: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    export(checkpoint, tmp_path / "model", check=False, **options)
    found = layer_nodes(tmp_path / "model")
    assert {kind: found[kind] for kind in ("Split", "Concat", "QuickGelu", "Mul")} == {
        "Split": 2, "Concat": 1, "QuickGelu": 1, "Mul": 1,
    }  # fmt: skip


def test_embedding_and_head_are_one_tensor_in_the_file(exported: tuple[str, Path]) -> None:
    _, folder = exported
    tensors = {tensor.name: tensor for tensor in model_of(folder).graph.initializer}
    (head,) = [node for node in nodes_of(folder, PRODUCT) if "embedding" in node.input[1]]
    found = {node.input[0]: tensors[node.input[0]] for node in nodes_of(folder, "Gather")
             if "embedding" in node.input[0]}  # fmt: skip
    assert sorted(found) == ["embedding.numbers.rows", "embedding.scales.rows"]
    for name in head.input[1:3]:
        view, table = found[f"{name}.rows"], tensors[name]
        assert place_of(view) == place_of(table) != {}
        assert np.prod(view.dims) == np.prod(table.dims)


def test_untied_embedding_and_head_are_two_tensors(tmp_path: Path) -> None:
    checkpoint = write_lively(tmp_path / "c", FAMILIES["qwen3, untied, other head size"])
    export(checkpoint, tmp_path / "model", weights="int4", check=False)
    tensors = {tensor.name: tensor for tensor in model_of(tmp_path / "model").graph.initializer}
    (head,) = [n for n in nodes_of(tmp_path / "model", PRODUCT) if "head" in n.input[1]]
    looked_up = [n.input[0] for n in nodes_of(tmp_path / "model", "Gather")]
    assert "embedding.numbers" in looked_up
    assert place_of(tensors["embedding.numbers"]) != place_of(tensors[head.input[1]])
    assert not [name for name in tensors if name.endswith(".rows")]


def test_manifest_and_info_list_the_operator_only_where_it_is_used(
    exported: tuple[str, Path], checkpoint: Path, tmp_path: Path
) -> None:
    storage, folder = exported
    both = {"SlidingWindowAttention": 1, "TTTMemory": 1}
    assert manifest_of(folder).operators == {**both, PRODUCT: 1}
    assert any(f"{PRODUCT} 1" in line for line in model_lines(model_info(folder)))
    for name, options in {
        "theirs": {"weights": storage, "products": "onnxruntime"},
        "wide": {"weights": "float32"},
    }.items():
        manifest = export(checkpoint, tmp_path / name, check=False, **options)
        assert manifest.operators == both
        bodies = {function.name for function in model_of(tmp_path / name).functions}
        assert PRODUCT not in bodies


def read(folder: Path, config: AllMemConfig, *, native: bool) -> np.ndarray:
    text = np.random.default_rng(1).integers(0, config.vocab_size, LENGTH).tolist()
    runner = GraphRunner(folder, state_spec(config), native=native)
    return runner.read(text, pieces(0, LENGTH, config.chunk), range(LENGTH))[0]


@needs_library
def test_library_and_body_agree_as_they_are_shipped(
    exported: tuple[str, Path], checkpoint: Path
) -> None:
    _, folder = exported
    config = AllMemConfig.from_pretrained(checkpoint)
    library, body = (read(folder, config, native=native) for native in (True, False))
    # Sums in another order move inputs by 1e-7; one that this takes across the middle of two of
    # its 255 levels makes 1e-3 of the logits.
    assert relative_rms(library, body) < 5e-3


@needs_library
def test_split_pieces_stay_equal(exported: tuple[str, Path], checkpoint: Path) -> None:
    _, folder = exported
    assert token_by_token_error(folder, checkpoint, LENGTH) < LARGEST


def test_no_widened_matrix_is_made_at_run_time_without_the_library(
    exported: tuple[str, Path], tmp_path: Path
) -> None:
    _, folder = exported
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(
        str(folder / GRAPH_FILE), options, providers=["CPUExecutionProvider"]
    )
    graph = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    assert not [node for node in graph.node if node.domain == DOMAIN]
    assert not [node for node in graph.node if node.op_type == "BitShift"]
    constants = {tensor.name for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("Gemm", "FusedGemm")]
    chosen = [node for node in graph.node if node.op_type == "If"]
    assert len(chosen) == 2, "whether there is an x_more is found out at run time, once a layer"
    assert len(products) >= 9
    assert all(node.input[1] in constants for node in products)


@needs_library
def test_both_ways_run_in_the_runtime(exported: tuple[str, Path]) -> None:
    _, folder = exported
    logits = {}
    for operators in ("native", "portable"):
        model = load(folder, device="cpu", operators=operators)
        found = model.session(undo=False).feed([5, 6, 7], logits="all")
        assert found is not None
        logits[operators] = found.copy()
        assert model.operators == operators
    assert relative_rms(logits["native"], logits["portable"]) < 5e-3


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ([], True),
        (["--matmul-kernel", "allmem"], True),
        (["--matmul-kernel", "onnxruntime"], False),
    ],
    ids=["default", "allmem", "onnxruntime"],
)
def test_command_chooses_who_multiplies(
    checkpoint: Path, tmp_path: Path, options: list[str], used: bool
) -> None:
    arguments = [str(checkpoint), str(tmp_path / "m"), "--weights", "int4", "--no-check", *options]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert (PRODUCT in manifest_of(tmp_path / "m").operators) == used


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"products": "allmem"}, "weights stored as float32"),
        ({"products": "onnxruntime", "activations": "float16"}, "weights stored as float16"),
        ({"products": "blas", "weights": "int8"}, "'blas'; allowed: allmem, onnxruntime"),
    ],
    ids=["float32", "float16", "nobody"],
)
def test_products_that_cannot_be_are_refused(
    checkpoint: Path, tmp_path: Path, options: dict[str, str], words: str
) -> None:
    with pytest.raises(ExportError, match=words):
        export(checkpoint, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()
