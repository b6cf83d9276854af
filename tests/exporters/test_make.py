"""From a source to a model folder in one go, without a checkpoint in between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import write_folder, write_gguf
from click.testing import CliRunner
from gguf import GGMLQuantizationType as Kind

from allmem_exporters.convert.conversion import convert
from allmem_exporters.convert.opening import open_conversion
from allmem_exporters.errors import ConfigError, ConversionError, ExportError
from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.weight_stream import MatrixStream
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.stored_format import Carried
from allmem_runtime.config import Manifest
from allmem_runtime.spec import MANIFEST_FILE

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)
SIZES = {"hidden_size": 64, "intermediate_size": 96}
HELD = {"q_proj": Kind.Q4_0, "k_proj": Kind.Q4_0, "v_proj": Kind.Q4_1, "o_proj": Kind.Q4_0,
        "gate_proj": Kind.Q4_1, "up_proj": Kind.Q4_0, "down_proj": Kind.Q4_1,
        "embed_tokens": Kind.Q8_0}  # fmt: skip


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("weights", ["float32", "int4"])
@pytest.mark.parametrize("name", ["llama tied", "qwen2", "qwen3 tied"])
def test_making_a_model_is_converting_and_exporting_it(
    tmp_path: Path, name: str, weights: str
) -> None:
    source = tmp_path / "pretrained"
    write_folder(source, name)
    checkpoint = convert(source, tmp_path / "checkpoint", MEMORY, seed=5)
    export(checkpoint, tmp_path / "in two", weights=weights, check=False)
    lines: list[str] = []
    options = ExportOptions(weights=weights)
    make(source, tmp_path / "in one", MEMORY, options, seed=5, report=lines.append)
    assert files_of(tmp_path / "in one") == files_of(tmp_path / "in two")
    assert any("logits" in line for line in lines), "checked"
    assert not any("carried over" in line for line in lines), "a folder has no blocks"


def test_half_precision_source_gives_what_its_checkpoint_gives(tmp_path: Path) -> None:
    source = tmp_path / "pretrained"
    write_folder(source)
    checkpoint = convert(source, tmp_path / "checkpoint", MEMORY, dtype="bfloat16")
    export(checkpoint, tmp_path / "in two", weights="int8", check=False)
    options = ExportOptions(weights="int8", check=False)
    make(source, tmp_path / "in one", MEMORY, options, dtype="bfloat16")
    assert files_of(tmp_path / "in one") == files_of(tmp_path / "in two")


def test_making_calibrates_as_a_conversion_does(tmp_path: Path) -> None:
    source = tmp_path / "pretrained"
    write_folder(source)
    text = "the thing that the other thing thought " * 12
    checkpoint = convert(source, tmp_path / "checkpoint", MEMORY, calibration_text=text)
    export(checkpoint, tmp_path / "in two", check=False)
    options = ExportOptions(check=False)
    make(source, tmp_path / "in one", MEMORY, options, calibration_text=text)
    assert files_of(tmp_path / "in one") == files_of(tmp_path / "in two")
    make(source, tmp_path / "plain", MEMORY, options)
    assert files_of(tmp_path / "in one") != files_of(tmp_path / "plain")
    with pytest.raises(ConfigError, match="Trained memories are not calibrated"):
        make(source, tmp_path / "out", MEMORY, memory="adapter", calibration_text=text)


def test_options_of_the_export_count_more(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    options = ExportOptions(window=24, chunk=8, kv_cache_dtype="float32", check=False)
    make(tmp_path / "tiny.gguf", tmp_path / "model", MEMORY, options)
    manifest = Manifest.from_json((tmp_path / "model" / MANIFEST_FILE).read_text(), "m")
    assert (manifest.window, manifest.sinks, manifest.chunk, manifest.cache) == (
        24, 4, 8, "float32",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["llama tied", "qwen2"])
def test_blocks_that_the_format_holds_are_carried_over_exactly(tmp_path: Path, name: str) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, name, kinds=HELD, **SIZES)
    _, weights, _ = open_conversion(file, MEMORY, seed=0, dtype=None, revision=None, memory=None)
    int4 = stored_format("int4")
    for matrix_name, matrix in MatrixStream(weights).items():
        table = matrix_name in ("embedding", "head")
        if name == "qwen2" and matrix_name == "head":
            continue  # it is float32 in this file
        stored = (int4.table_format if table else int4).quantize(matrix, matrix_name)
        exact = (stored.dequantize() == matrix.rows(0, stored.rows)).float().mean()
        decoder = {"project": 0.5, "back": 0.5, "gate_up": 1.0, "down": 1.0}
        share = 1.0 if table else decoder[matrix_name.split(".")[2]]
        assert exact >= share, matrix_name
        assert stored.carried.exact >= share * stored.rows * stored.columns


def test_export_says_how_many_weights_are_carried_over(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", kinds=HELD, **SIZES)
    lines: list[str] = []
    make(tmp_path / "tiny.gguf", tmp_path / "model", MEMORY, ExportOptions(weights="int4"),
         report=lines.append)  # fmt: skip
    (line,) = [line for line in lines if "carried over" in line]
    carried, total = (int(word.replace(",", "")) for word in line.split()[:3:2])
    memory = 2 * (3 * 16 * 64 + 16 * 64)
    # Every weight of the decoder; what is left are the memories' own.
    assert carried == total - memory


def test_five_bits_are_carried_over_as_eight(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, kinds={"proj": Kind.Q5_0, "embed": Kind.Q5_0}, **SIZES)
    _, weights, _ = open_conversion(file, MEMORY, seed=0, dtype=None, revision=None, memory=None)
    matrix = MatrixStream(weights)["layers.1.down.weight"]
    stored = stored_format("int8").quantize(matrix, "down")
    assert stored.carried.exact == stored.rows * stored.columns
    assert torch.equal(stored.dequantize(), matrix.rows(0, stored.rows))
    narrow = stored_format("int4").quantize(matrix, "down")
    assert narrow.carried.exact < narrow.rows * narrow.columns / 2, "four bits do not hold five"


def test_factors_that_do_not_give_the_weights_are_not_taken() -> None:
    class Wrong:
        shape = (16, 64)
        values = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))

        def rows(self, first: int, end: int) -> torch.Tensor:
            return self.values[first:end]

        def block_factors(self, first: int, end: int) -> torch.Tensor:
            return torch.full((end - first, 2, 2), 0.125)

    for weights in ("int4", "int8"):
        stored_as = stored_format(weights)
        found, plain = (stored_as.quantize(one, "w") for one in (Wrong(), Wrong.values))
        assert found.carried == Carried()
        assert all(np.array_equal(found.tensors[p], plain.tensors[p]) for p in plain.tensors)


def test_interrupted_making_leaves_nothing(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")

    def interrupt(line: str) -> None:
        if line.startswith("checking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "tiny.gguf", tmp_path / "model", MEMORY, report=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_options_and_destination_are_refused_before_the_source_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not multiplied in integers"):
        options = ExportOptions(weights="float32", matmul_kernel="allmem")
        make(tmp_path / "nothing", tmp_path / "out", MEMORY, options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="holds no exported model"):
        make(tmp_path / "nothing", tmp_path / "mine", MEMORY)
    with pytest.raises(ConversionError, match="neither a file, nor a folder"):
        make(tmp_path / "nothing", tmp_path / "out", MEMORY)


def test_command_makes_a_model(tmp_path: Path) -> None:
    from allmem_exporters.commands.make import make as command

    write_gguf(tmp_path / "tiny.gguf")
    out = tmp_path / "model"
    arguments = ["--window", "32", "--chunk", "16", "--mem-width", "16", "--weights", "int8"]
    arguments += ["--set", "conv_act=none", "--no-check"]
    result = CliRunner().invoke(command, [str(tmp_path / "tiny.gguf"), str(out), *arguments])
    assert result.exit_code == 0, result.output
    assert json.loads((out / MANIFEST_FILE).read_text())["weights"] == "int8"
    assert b"silu_qk" not in (out / "model.onnx").read_bytes(), "what --set chose"
