"""`allmem convert`: make an AllMem checkpoint from a pretrained model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from allmem_exporters.model.memory_options import MemoryOptions
from allmem_runtime.cli.messages import put_path, say
from allmem_runtime.cli.option_flags import option_flags
from allmem_runtime.cli.shared_options import command, json_flag

_DTYPE = click.option("--dtype", help="float32, float16 or bfloat16.  [default: as the source]")
_SEED = click.option("--seed", default=0, show_default=True, help="Of the memory's initial values.")
_REVISION = click.option("--revision", help="Branch, tag or commit on the hub.")
_MEMORY = click.option(
    "--memory",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A memory adapter made by `allmem finetune`.",
)


def decoder_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that say what a decoder is converted with."""
    for flag in (_MEMORY, _REVISION, _SEED, _DTYPE):
        function = flag(function)
    return function


@command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@option_flags(MemoryOptions)
@click.option(
    "--set",
    "chosen",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other option of the memory, as config.json names it; can be repeated.",
)
@decoder_flags
@click.option(
    "--calibrate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file on which the memory's keys are whitened and its values scaled.",
)
@click.option("--force", is_flag=True, help="Write into a folder that holds other things.")
@json_flag("One JSON object instead of text.")
def convert(
    source: str,
    out: Path,
    dtype: str | None,
    seed: int,
    revision: str | None,
    calibrate: Path | None,
    memory: Path | None,
    force: bool,
    as_json: bool,
    chosen: tuple[str, ...],
    options: MemoryOptions,
) -> None:
    """Make an AllMem checkpoint in OUT from SOURCE.

    SOURCE is a GGUF file, a folder with config.json and safetensors, or owner/model on the hub.
    The result reads like the original within its window; its memory still has to be trained.
    """
    from allmem_exporters.convert.conversion import PROVENANCE_FILE
    from allmem_exporters.convert.conversion import convert as run

    say(f"converting {source}")
    text = calibrate.read_text(encoding="utf-8", errors="replace") if calibrate else None
    folder = run(
        source,
        out,
        options,
        dtype=dtype,
        seed=seed,
        revision=revision,
        calibration_text=text,
        memory=memory,
        force=force,
        **_named(chosen, options),
    )
    record = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "source": record}))
    else:
        put_path(folder)
        say(f"memory: {record['memory']}; weights: {record['dtype']}")


def _named(chosen: tuple[str, ...], options: MemoryOptions) -> dict[str, Any]:
    """Values of ``--set``: numbers, true and false as JSON writes them, anything else as text."""
    named: dict[str, Any] = {}
    for pair in chosen:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE.", param_hint="--set")
        if name in named or name in options.chosen():
            raise click.BadParameter(f"{name} is chosen twice.", param_hint="--set")
        try:
            named[name] = json.loads(value)
        except json.JSONDecodeError:
            named[name] = value
    return named
