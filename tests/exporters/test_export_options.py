"""An export has one set of options: for `allmem export`, optimum's command line, and Python."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from allmem_exporters import AllMemConfig
from allmem_exporters.commands.export import export as export_command
from allmem_exporters.errors import ExportError
from allmem_exporters.model.config import default_memory_width
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.step_module import DTYPES
from allmem_exporters.optimum.arguments import add_arguments, options_of
from allmem_exporters.quantization.formats import KERNELS, WEIGHTS
from allmem_runtime.cli import allmem
from allmem_runtime.config import Manifest
from allmem_runtime.options import declared_options, from_keywords
from allmem_runtime.spec import GRAPH_FILE, MANIFEST_FILE

PLUGIN = Path(__file__).parents[2] / "exporters" / "optimum_cli" / "register_allmem.py"


def parsed(*arguments: str) -> ExportOptions:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options_of(parser.parse_args(["--model", "m", *arguments, "out"]))


def clicked(*arguments: str) -> ExportOptions:
    """What `allmem export` makes of its arguments."""
    found: list[ExportOptions] = []
    inner = inspect.unwrap(export_command.callback)  # type: ignore[arg-type]
    assert "options" in inspect.signature(inner).parameters
    for entry in declared_options(ExportOptions):
        assert any(p.name == entry.name for p in export_command.params)

    @click.command(params=export_command.params)
    def told(**values: Any) -> None:
        del values["checkpoint"], values["out"]
        found.append(ExportOptions(**values))

    done = CliRunner().invoke(told, ["c", "o", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return found[0]


SPELLINGS = [
    pytest.param(
        ["--weights", "int4", "--matmul-kernel", "onnxruntime"],
        {"weights": "int4", "products": "onnxruntime"},
        ExportOptions(weights="int4", matmul_kernel="onnxruntime"),
        id="kernel",
    ),
    pytest.param(
        ["--weights", "int4", "--products", "onnxruntime"],
        {"weights": "int4", "matmul_kernel": "onnxruntime"},
        ExportOptions(weights="int4", matmul_kernel="onnxruntime"),
        id="earlier kernel",
    ),
    pytest.param(
        ["--kv-cache-dtype", "int8"],
        {"kv": "int8"},
        ExportOptions(kv_cache_dtype="int8"),
        id="cache",
    ),
    pytest.param(
        ["--kv", "int8"],
        {"kv_cache_dtype": "int8"},
        ExportOptions(kv_cache_dtype="int8"),
        id="earlier cache",
    ),
    pytest.param(
        ["--memory", "silent"], {"memory": "silent"}, ExportOptions(memory="disabled"), id="memory"
    ),
    pytest.param(
        ["--window", "2k", "--sinks", "0", "--chunk", "512"],
        {"window": 2048, "sinks": 0, "chunk": 512},
        ExportOptions(window=2048, sinks=0, chunk=512),
        id="lengths",
    ),
    pytest.param(
        ["--no-check", "--force"],
        {"check": False, "force": True},
        ExportOptions(check=False, force=True),
        id="switches",
    ),
]


@pytest.mark.parametrize(("arguments", "keywords", "options"), SPELLINGS)
def test_all_ways_to_give_options_make_the_same(
    arguments: list[str], keywords: dict[str, Any], options: ExportOptions
) -> None:
    assert parsed(*arguments) == options
    assert clicked(*arguments) == options
    assert from_keywords(ExportOptions, keywords, ExportError) == options


def test_a_flag_in_both_spellings_takes_what_was_said_last() -> None:
    arguments = ["--weights", "int8", "--products", "onnxruntime", "--matmul-kernel", "allmem"]
    assert parsed(*arguments).matmul_kernel == "allmem"
    assert clicked(*arguments).matmul_kernel == "allmem"


@pytest.mark.parametrize("arguments", [["--weights", "int2"], ["--memory", "off"],
                                       ["--window", "much"]])  # fmt: skip
def test_optimum_refuses_what_cannot_be_meant(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("command", ["export", "eval rows", "convert"])
def test_help_shows_the_spellings_of_today(command: str) -> None:
    done = CliRunner().invoke(allmem, [*command.split(), "--help"], catch_exceptions=False)
    assert "--kv-cache-dtype" in done.output
    assert "silent" not in done.output and "|on|" not in done.output
    assert not {"--products", "--kv"} & set(done.output.split())


def test_optimums_help_shows_the_spellings_of_today() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = parser.format_help().replace("{", " ").replace("}", " ").replace(",", " ").split()
    assert {"--kv-cache-dtype", "--matmul-kernel", "enabled"} <= set(words)
    assert not {"--products", "--kv", "silent"} & set(words)


def test_choices_are_those_that_the_exporter_knows() -> None:
    choices = {entry.name: entry.declared.choices for entry in declared_options(ExportOptions)}
    assert choices["weights"] == WEIGHTS
    assert choices["matmul_kernel"] == KERNELS
    assert set(choices["activations"]) == set(DTYPES)
    memory = {entry.name: entry.declared.choices for entry in declared_options(MemoryOptions)}
    assert choices["kv_cache_dtype"] == memory["cache_dtype"]


def test_what_help_says_of_defaults_is_what_the_configuration_has() -> None:
    config = AllMemConfig(num_key_value_heads=3)
    for entry in declared_options(MemoryOptions):
        note, value = entry.declared.default_note.split(",")[0], getattr(config, entry.name)
        if entry.declared.on_command_line and not note.endswith("heads") and "a head" not in note:
            assert entry.type(note) == value, entry.name
    assert config.mem_heads == 3 and default_memory_width(3) == 64 * 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"weights": "int2"}, "weights is 'int2'; allowed: float32"),
        ({"activations": "int8"}, "activations is 'int8'; allowed: float32, float16"),
        ({"activations": "float16", "weights": "int8"}, "do not go with activations in float16"),
        ({"kvs": "int8"}, "Unknown option 'kvs'"),
        ({"kv": "int8", "kv_cache_dtype": "int8"}, "kv_cache_dtype is given twice"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_anything_is_read(
    tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ExportError, match=says):
        export(tmp_path / "nothing", tmp_path / "out", **given)


# optimum's plug-in ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    """The file that is installed into optimum's folder, as it stands here."""
    spec = importlib.util.spec_from_file_location("register_allmem", PLUGIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_of(plugin: ModuleType, *arguments: str) -> Any:
    (kind, _), *others = plugin.REGISTER_COMMANDS
    assert not others
    parser = argparse.ArgumentParser()
    kind.parse_args(parser)
    given = parser.parse_args(list(arguments))
    return kind(None, args=given, from_defaults_factory=True, parser=parser)


def test_plugin_exports_with_the_options_that_are_given(
    plugin: ModuleType, tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    options = ["--weights", "int4", "--kv", "float32", "--window", "20", "--no-check"]
    command_of(plugin, "--model", str(tiny_checkpoint_dir), *options, str(out)).run()
    assert (out / GRAPH_FILE).is_file()
    manifest = Manifest.from_json((out / MANIFEST_FILE).read_text(), MANIFEST_FILE)
    assert (manifest.weights, manifest.cache, manifest.window) == ("int4", "float32", 20)


def test_plugin_says_what_is_wrong(
    plugin: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command_of(plugin, "--model", str(tmp_path / "nowhere"), str(tmp_path / "out")).run()
    assert ended.value.code == 1
    assert "nowhere" in capsys.readouterr().err


def test_help_does_not_wait_for_pytorch() -> None:
    code = (
        "import argparse, sys\n"
        "from allmem_exporters.commands import comparison_models, convert, data, export\n"
        "from allmem_exporters.optimum.arguments import add_arguments\n"
        "add_arguments(argparse.ArgumentParser())\n"
        "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])"
    )
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": path, "PATH": ""},
    )
    assert done.stdout.strip() == "[]"
