"""optimum knows the model type, and its command line exports it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from optimum.exporters.tasks import TasksManager

from allmem_exporters import AllMemConfig
from allmem_exporters.errors import ConversionError
from allmem_exporters.optimum import registry as optimum
from allmem_exporters.optimum.arguments import add_arguments
from allmem_exporters.optimum.command import is_checkpoint, main, run
from allmem_runtime.printable import for_terminal
from allmem_runtime.spec import GRAPH_FILE, MANIFEST_FILE


def test_registry_knows_the_task() -> None:
    tasks = TasksManager.get_supported_tasks_for_model_type(
        "allmem", "onnx", library_name="transformers"
    )
    assert list(tasks) == ["text-generation"]


def test_registry_describes_the_graph_that_is_exported(
    tiny_checkpoint_dir: Path, tiny_model_dir: Path
) -> None:
    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model_type="allmem", task="text-generation", library_name="transformers"
    )
    described = constructor(AllMemConfig.from_pretrained(tiny_checkpoint_dir))
    graph = onnx.load(tiny_model_dir / GRAPH_FILE, load_external_data=False).graph
    assert list(described.inputs) == [value.name for value in graph.input]
    assert list(described.outputs) == [value.name for value in graph.output]


def test_dummy_inputs_have_the_shapes_of_the_graph(
    tiny_checkpoint_dir: Path, tiny_model_dir: Path
) -> None:
    config = AllMemConfig.from_pretrained(tiny_checkpoint_dir)
    dummy = optimum.AllMemOnnxConfig(config, task="text-generation").generate_dummy_inputs()
    graph = onnx.load(tiny_model_dir / GRAPH_FILE, load_external_data=False).graph
    for value in graph.input:
        wanted = [d.dim_value for d in value.type.tensor_type.shape.dim]
        assert [n if w else 0 for n, w in zip(dummy[value.name].shape, wanted, strict=True)] == (
            wanted
        )


def test_checkpoints_are_told_from_models_to_convert(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    assert is_checkpoint(tiny_checkpoint_dir)
    assert not is_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert not is_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to(tiny_checkpoint_dir / "config.json")
    with pytest.raises(ConversionError, match="outside the folder"):
        is_checkpoint(tmp_path)


def test_command_exports_a_checkpoint(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    run(str(tiny_checkpoint_dir), tmp_path / "model", check=False)
    assert (tmp_path / "model" / GRAPH_FILE).is_file()


def test_optimum_cli_finds_the_command(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    cli = Path(sys.executable).with_name("optimum-cli")
    if not cli.is_file():
        pytest.fail("optimum-cli is not installed; install the extras export and dev")
    out = tmp_path / "model"
    arguments = ["export", "allmem", "--model", str(tiny_checkpoint_dir), "--no-check", str(out)]
    finished = subprocess.run([cli, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert (out / GRAPH_FILE).is_file()


def test_optimum_cli_takes_the_options_of_an_export(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    cli = Path(sys.executable).with_name("optimum-cli")
    out = tmp_path / "model"
    arguments = ["export", "allmem", "--model", str(tiny_checkpoint_dir), "--no-check", str(out)]
    options = ["--weights", "int4", "--activations", "float32", "--kv-cache-dtype", "float32"]
    finished = subprocess.run(
        [cli, *arguments, *options], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    manifest = json.loads((out / MANIFEST_FILE).read_text(encoding="utf-8"))
    assert (manifest["weights"], manifest["activations"], manifest["cache"]) == (
        "int4", "float32", "float32",
    )  # fmt: skip


def test_optimum_cli_says_what_is_wrong(tmp_path: Path) -> None:
    cli = Path(sys.executable).with_name("optimum-cli")
    arguments = ["export", "allmem", "--model", str(tmp_path / "nowhere"), str(tmp_path / "out")]
    finished = subprocess.run([cli, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "nowhere" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_no_name_controls_the_terminal_or_forges_a_line(
    tiny_checkpoint_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2Jno\r\nFORGED\u202e"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    main(
        parser.parse_args(["--model", str(tiny_checkpoint_dir), "--no-check", f"{tmp_path}/{evil}"])
    )
    for arguments in (
        ["--model", evil, str(tmp_path / "out")],
        ["--model", evil, "--weights", evil, str(tmp_path / "out")],
        ["--model", evil, "--window", evil, str(tmp_path / "out")],
    ):
        with pytest.raises(SystemExit):
            main(parser.parse_args(arguments))
    told = capsys.readouterr()
    assert r"\x1b[2Jno\r\nFORGED\u202e" in told.err
    for text in (told.out, told.err):
        assert for_terminal(text) == text
        assert not any(line.startswith("FORGED") for line in text.splitlines())
