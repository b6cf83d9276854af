"""`allmem convert` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import write_folder
from click.testing import CliRunner

from allmem_exporters.commands.convert import convert
from allmem_exporters.errors import ConversionError


def test_command_prints_the_folder_and_hands_every_option_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    out = tmp_path / "out"
    result = CliRunner().invoke(
        convert,
        [str(tmp_path / "pretrained"), str(out), "--window", "48", "--sinks", "0", "--chunk", "24",
         "--mem-width", "8", "--mem-heads", "1", "--mem-hidden-mult", "3", "--conv-kernel", "2",
         "--lr-init", "0.001", "--theta-rel", "0", "--inner-loss", "l2", "--norm-schedule", "post",
         "--sink-rope", "true", "--kv-cache-dtype", "float32", "--dtype", "bfloat16",
         "--seed", "9"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0 and result.stdout == f"{out}\n"
    config = json.loads((out / "config.json").read_text())
    wanted = {
        "window": 48, "sinks": 0, "chunk": 24, "mem_width": 8, "mem_heads": 1,
        "mem_hidden_mult": 3.0, "conv_kernel": 2, "lr_init": 0.001, "theta_rel": 0.0,
        "inner_loss": "l2", "norm_schedule": "post", "sink_rope": "true",
        "cache_dtype": "float32", "dtype": "bfloat16",
    }  # fmt: skip
    assert {key: config[key] for key in wanted} == wanted
    assert json.loads((out / "provenance.json").read_text())["seed"] == "9"


def test_lengths_and_the_earlier_spelling_of_the_cache_are_understood(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    out = tmp_path / "out"
    arguments = ["--window", "1k", "--mem-width", "8", "--kv", "int8"]
    result = CliRunner().invoke(
        convert, [str(tmp_path / "pretrained"), str(out), *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["window"], config["cache_dtype"]) == (1024, "int8")


def test_any_option_of_the_memory_can_be_set(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    out = tmp_path / "out"
    chosen = ["mem_residual=false", "conv_act=none", "mem_width=16", "theta_rel=1"]
    arguments = [item for pair in chosen for item in ("--set", pair)]
    result = CliRunner().invoke(
        convert, [str(tmp_path / "pretrained"), str(out), *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0
    config = json.loads((out / "config.json").read_text())
    wanted = {"mem_residual": False, "conv_act": "none", "mem_width": 16, "theta_rel": 1}
    assert {key: config[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "mem_residual"], "NAME=VALUE"),
        (["--set", "chunk=8", "--set", "chunk=16"], "chunk is chosen twice"),
        (["--chunk", "8", "--set", "chunk=16"], "chunk is chosen twice"),
    ],
    ids=["no value", "twice", "beside its own option"],
)
def test_settings_that_say_nothing_or_too_much_are_refused(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    write_folder(tmp_path / "pretrained")
    result = CliRunner().invoke(
        convert, [str(tmp_path / "pretrained"), str(tmp_path / "out"), *arguments]
    )
    assert result.exit_code == 2 and named in result.output
    assert not (tmp_path / "out").exists()


def test_command_prints_one_object_for_programs(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    arguments = [str(tmp_path / "pretrained"), str(tmp_path / "out"), "--mem-width", "16", "--json"]
    result = CliRunner().invoke(convert, arguments, catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert printed["folder"] == str(tmp_path / "out")
    assert printed["source"]["name"] == "pretrained"


def test_failure_reaches_the_edge_as_our_own_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(convert, [str(tmp_path / "nothing"), str(tmp_path / "out")])
    assert isinstance(result.exception, ConversionError)
