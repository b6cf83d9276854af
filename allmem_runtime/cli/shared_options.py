"""What command lines have in common: how help is asked for, the model, and what it runs on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from allmem_runtime.errors import StorageError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

model_argument = click.argument("model", type=click.Path(path_type=Path))


def command(help: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that ``-h`` asks for help; its text is ``help`` or the function's docstring."""
    return click.command(help=help, context_settings=HELP_NAMES)


def running_options(most_threads: int | None = None) -> Decorator:
    """``--device``, ``--operators`` and ``--threads`` of commands that load a model.

    Args:
        most_threads: largest number that is taken; None leaves that to the runtime.
    """
    options = [
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:N]."),
        click.option("--operators", default="auto", show_default=True,
                     help="auto, native, portable, or a library."),
        click.option("--threads", type=click.IntRange(1, most_threads),
                     help="CPU threads of a step."),
    ]  # fmt: skip

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def json_flag(help: str = "One JSON object instead of text.") -> Decorator:
    """``--json`` of commands that print; the function gets ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def json_file_option(help: str) -> Decorator:
    """``--json FILE`` of commands that measure; the function gets ``json_path``."""
    file = click.Path(dir_okay=False, path_type=Path)
    return click.option("--json", "json_path", type=file, help=help)


def plot_file_option(help: str) -> Decorator:
    """``--plot FILE`` of commands that measure; the function gets ``plot_path``."""
    file = click.Path(dir_okay=False, path_type=Path)
    return click.option("--plot", "plot_path", type=file, help=help)


def check_folder_of(path: Path | None) -> None:
    """Find out before hours of measuring, not after, that a file could not be written.

    Raises:
        StorageError: the folder is not there.
    """
    if path is not None and not path.parent.is_dir():
        raise StorageError(f"There is no folder {path.parent}.", "Make it, or name another.")
