"""Every command that makes a model gives windows by a head table, and all give the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import write_folder
from click.testing import CliRunner

from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ExportError
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.make import make
from allmem_exporters.model.checkpoint import CheckpointWeights
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.weights import decoder_digest
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.optimum.command import run as optimum
from allmem_runtime.cli import allmem
from allmem_runtime.errors import UsageError
from allmem_runtime.files.package import open_package

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("giving") / "pretrained"
    write_folder(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(source: Path) -> Path:
    return convert(source, source.with_name("checkpoint"), MEMORY)


@pytest.fixture(scope="module")
def table(checkpoint: Path) -> Path:
    weights = CheckpointWeights(checkpoint)
    heads, layers = weights.config.num_key_value_heads, weights.config.num_hidden_layers
    worth = [[(0.1, 0.1)] * heads for _ in range(layers)]
    worth[-1][0] = (0.9, 0.9)
    worth[0][0] = (0.0, 0.0)
    path = checkpoint.with_name("heads.json")
    rows = tuple(map(tuple, worth))
    made = HeadTable(decoder_digest(weights), (16, 32, 48), 4, rows, {"copy": 1.0}, {"copy": 1})
    made.save(path)
    return path


def windows_of(folder: Path) -> tuple[tuple[int, ...], ...]:
    manifest = open_package(folder).manifest
    assert manifest.windows is not None
    return manifest.windows


def test_making_converting_and_exporting_give_the_same_windows(
    source: Path, checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    export(checkpoint, tmp_path / "exported", windows=table, check=False)
    expected = windows_of(tmp_path / "exported")
    assert expected[-1][0] > 32 > expected[0][0] == 16
    options = ExportOptions(windows=table, check=False)
    make(source, tmp_path / "made", MEMORY, options)
    assert windows_of(tmp_path / "made") == expected
    flags = "--window 32 --sinks 4 --chunk 16 --mem-width 16 --windows"
    done = CliRunner().invoke(
        allmem, ["convert", str(source), str(tmp_path / "by head"), *flags.split(), str(table)]
    )
    assert done.exit_code == 0, done.output
    assert "1 sees 80 tokens" in done.output and "head 0" in done.output
    export(tmp_path / "by head", tmp_path / "of converted", check=False)
    assert windows_of(tmp_path / "of converted") == expected
    export(tmp_path / "by head", tmp_path / "one", window=20, check=False)
    assert open_package(tmp_path / "one").manifest.windows is None


def test_optimum_gives_windows_within_a_budget(
    source: Path, checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    export(checkpoint, tmp_path / "exported", windows=table, state_budget=60 << 10, check=False)
    optimum(str(checkpoint), tmp_path / "model", windows=table, state_budget=60 << 10, check=False)
    assert windows_of(tmp_path / "model") == windows_of(tmp_path / "exported")


def test_a_conversion_by_a_table_of_another_model_leaves_no_checkpoint(
    source: Path, table: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    write_folder(other, "qwen2")
    for arguments, said in (
        (["--windows", table], "another decoder"),
        (["--state-budget", "1MiB"], "needs a head table"),
    ):
        words = ["convert", other, tmp_path / "out", "--chunk", "16", *arguments]
        with pytest.raises(ExportError, match=said):
            CliRunner().invoke(allmem, [*map(str, words)], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_info_draws_the_windows_of_a_model(checkpoint: Path, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    export(checkpoint, tmp_path / "model", windows=table, check=False)
    picture = tmp_path / "windows.png"
    arguments = ["info", str(tmp_path / "model"), "--plot", str(picture)]
    done = CliRunner().invoke(allmem, arguments)
    assert done.exit_code == 0, done.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="draws a model's windows"):
        CliRunner().invoke(allmem, [*arguments, "--flops"], catch_exceptions=False)
