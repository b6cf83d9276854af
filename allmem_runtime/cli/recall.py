"""``allmem recall``: how much of what was read a session still holds."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_runtime.cli.messages import put, put_json
from allmem_runtime.cli.option_flags import FilePath
from allmem_runtime.cli.options import DEFAULT_PASSAGES
from allmem_runtime.cli.shared_options import (
    command,
    engine_flags,
    json_flag,
    model_argument,
    plot_file_option,
)
from allmem_runtime.engine.options import EngineOptions


@command()
@model_argument
@click.argument("session", type=FilePath())
@click.option("--probes", "each", default=20, show_default=True, type=click.IntRange(1, 1000),
              help="Most for each range of distances.")  # fmt: skip
@click.option("--passages", default=DEFAULT_PASSAGES, show_default=True,
              type=click.IntRange(1, 64), help="Most passages read again for a probe.")  # fmt: skip
@engine_flags
@json_flag()
@plot_file_option("Draw the shares by distance (needs matplotlib).")
def recall(
    model: Path, session: Path, each: int, passages: int, engine: EngineOptions, as_json: bool,
    plot_path: Path | None,
) -> None:  # fmt: skip
    """Tell how much of what SESSION has read MODEL's state still holds, by distance.

    Probes are made of the text that is kept beside the session: beginnings of sentences up to a
    name or number that occurs once. A copy of the session goes on from each, with the state alone
    and with passages read again. They are chosen by the text, not by what the model can answer.
    """
    from allmem_runtime.evaluation.recall import Recall, measure
    from allmem_runtime.evaluation.recall_report import HEAD, as_values, line, plot, sentence
    from allmem_runtime.model import load

    if plot_path is not None:
        from allmem_runtime.plotting import check_plot

        check_plot(plot_path)
    opened = load(model, engine).open(session, undo=False)
    rows: list[Recall] = []
    for row in measure(opened, each, passages):
        if not rows and not as_json:
            put(HEAD)
        rows.append(row)
        if not as_json:
            put(line(row))
    if plot_path is not None:
        plot(rows, plot_path)
    if as_json:
        put_json({"rows": as_values(rows), "sentence": sentence(rows)})
    else:
        put(sentence(rows))
