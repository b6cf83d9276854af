"""What command lines have in common: how help is asked for, the model, and what it runs on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from allmem_runtime.cli.option_flags import Decorator, FilePath, option_flags
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import StorageError

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

model_argument = click.argument("model", type=FilePath())


def command(help: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that ``-h`` asks for help; its text is ``help`` or the function's docstring."""
    return click.command(help=help, context_settings=HELP_NAMES)


engine_flags = option_flags(EngineOptions, "engine")
"""The flags of commands that load a model; the function gets ``engine``."""


def json_flag(help: str = "One JSON object instead of text.") -> Decorator:
    """``--json`` of commands that print; the function gets ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def json_file_option(help: str) -> Decorator:
    """``--json FILE`` of commands that measure; the function gets ``json_path``."""
    file = FilePath(dir_okay=False)
    return click.option("--json", "json_path", type=file, help=help)


def plot_file_option(help: str) -> Decorator:
    """``--plot FILE`` of commands that measure; the function gets ``plot_path``."""
    file = FilePath(dir_okay=False)
    return click.option("--plot", "plot_path", type=file, help=help)


def check_folder_of(path: Path | None) -> None:
    """Find out before hours of measuring, not after, that a file could not be written.

    Raises:
        StorageError: the folder is not there.
    """
    if path is not None and not path.parent.is_dir():
        raise StorageError(f"There is no folder {path.parent}.", "Make it, or name another.")
