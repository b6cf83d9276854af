"""``allmem info``: what a model or a saved session is, and what a shape costs."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_runtime import flops
from allmem_runtime.cli.messages import put, put_json
from allmem_runtime.cli.option_flags import FilePath
from allmem_runtime.cli.shared_options import command, json_flag
from allmem_runtime.errors import SessionFileError, UsageError
from allmem_runtime.files.package import open_package
from allmem_runtime.info import (
    head_windows,
    is_session,
    model_info,
    model_lines,
    session_info,
    session_lines,
)
from allmem_runtime.plotting import check_plot, heat_map


@command()
@click.argument("path", type=FilePath(), metavar="MODEL|SESSION", required=False)
@json_flag()
@click.option("--flops", "work", is_flag=True, help="Operations per token instead, of a model.")
@click.option(
    "--shape",
    type=click.Choice(sorted(flops.SHAPES)),
    help="Operations per token of a published decoder; no model is needed.",
)
@click.option(
    "--plot",
    type=FilePath(dir_okay=False),
    help="Draw a model's windows by head (needs matplotlib).",
)
def info(
    path: Path | None, as_json: bool, work: bool, shape: str | None, plot: Path | None
) -> None:
    """Say what a model or a saved session is, without loading it.

    For a model: its architecture, the parts of its state in bytes (they never grow), weights,
    operators, where it came from, and the cache of full attention that the state replaces. For a
    session: how much it has read of what, its model and the session it was forked from. A
    session file holds no text that was read; how much is kept beside it is told.

    With --flops, or for a --shape: operations per token at 4k, 37k and 128k, full attention
    beside AllMem, and the cache.
    """
    if plot is not None:
        if path is None or work or is_session(path):
            raise UsageError("--plot draws a model's windows.", "Name a model, without --flops.")
        check_plot(plot)
    if shape is not None:
        if path is not None:
            raise UsageError("--shape goes without a model.", "Leave one of the two out.")
        values = flops.account(flops.SHAPES[shape])
        lines = flops.lines(values)
    elif path is None:
        raise UsageError("There is nothing to describe.", "Name a model, a session or a --shape.")
    elif not path.exists():
        raise SessionFileError(
            f"There is no {path}.",
            "Name a model folder, the model.onnx in one, or a saved session.",
        )
    elif is_session(path):
        if work:
            raise UsageError("--flops is for models.", "Name the session's model.")
        values = session_info(path)
        lines = session_lines(values)
    elif work:
        values = flops.account(flops.Shape.of(open_package(path).manifest))
        lines = flops.lines(values)
    else:
        values = model_info(path)
        lines = model_lines(values)
        if plot is not None:
            windows = head_windows(open_package(path).manifest)
            heat_map(plot, windows, "Tokens that each head sees")
    put_json(values) if as_json else put(*lines)
