"""The flags that say what a decoder is converted with, of `allmem convert` and `allmem make`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from allmem_exporters.errors import ConfigError
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_runtime.cli.option_flags import FilePath, option_flags
from allmem_runtime.options import from_keywords

_FLAGS = (
    click.option(
        "--set",
        "chosen",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other option of the memory, as config.json names it; can be repeated.",
    ),
    click.option("--dtype", help="float32, float16 or bfloat16.  [default: as the source]"),
    click.option("--seed", default=0, show_default=True, help="Of the memory's initial values."),
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option(
        "--memory",
        type=FilePath(exists=True, dir_okay=False),
        help="A memory adapter made by `allmem finetune`.",
    ),
    click.option(
        "--calibrate",
        type=FilePath(exists=True, dir_okay=False),
        help="A text file on which the memory's keys are whitened and its values scaled.",
    ),
)


def conversion_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these flags; it gets them as ``conversion``, keywords of ``convert``."""

    @functools.wraps(function)
    def command(
        options: MemoryOptions,
        chosen: tuple[str, ...],
        dtype: str | None,
        seed: int,
        revision: str | None,
        memory: Path | None,
        calibrate: Path | None,
        **others: Any,
    ) -> Any:
        named = _named(chosen, options)
        text = calibrate.read_text(encoding="utf-8", errors="replace") if calibrate else None
        conversion = {
            "options": from_keywords(MemoryOptions, named, ConfigError, options),
            "dtype": dtype,
            "seed": seed,
            "revision": revision,
            "memory": memory,
            "calibration_text": text,
        }
        return function(conversion=conversion, **others)

    flagged: Callable[..., Any] = command
    for flag in reversed(_FLAGS):
        flagged = flag(flagged)
    return option_flags(MemoryOptions)(flagged)


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
