"""``allmem recall``: how much of what was read a session still holds."""

from __future__ import annotations

import json
from pathlib import Path

import click

from allmem_runtime.cli.messages import put
from allmem_runtime.cli.options import DEFAULT_PASSAGES
from allmem_runtime.cli.shared_options import command, engine_flags, json_flag, model_argument
from allmem_runtime.engine.options import EngineOptions

_BAR = 20


@command()
@model_argument
@click.argument("session", type=click.Path(path_type=Path))
@click.option("--probes", "each", default=20, show_default=True, type=click.IntRange(1, 1000),
              help="Most for each range of distances.")  # fmt: skip
@click.option("--passages", default=DEFAULT_PASSAGES, show_default=True,
              type=click.IntRange(1, 64), help="Most passages read again for a probe.")  # fmt: skip
@engine_flags
@json_flag()
def recall(
    model: Path, session: Path, each: int, passages: int, engine: EngineOptions, as_json: bool
) -> None:
    """Tell how much of what SESSION has read MODEL's state still holds, by distance.

    Probes are made of the text that is kept beside the session: beginnings of sentences up to a
    name or number that occurs once. A copy of the session goes on from each, with the state alone
    and with passages read again. They are chosen by the text, not by what the model can answer.
    """
    from allmem_runtime.evaluation.recall import as_values, measure, sentence
    from allmem_runtime.model import load

    opened = load(model, engine).open(session, undo=False)
    rows = []
    for row in measure(opened, each, passages):
        rows.append(row)
        if as_json:
            continue
        if len(rows) == 1:
            put(f"{'tokens back':>22}   state alone {'':{_BAR}}   with passages")
        reach = f"{row.least:,} to {row.most:,}" if row.most else f"{row.least:,} and more"
        full = round(_BAR * row.state / row.probes) if row.probes else 0
        put(
            f"{reach:>22}   {row.state:>4} of {row.probes:<4} "
            f"{'█' * full}{'░' * (_BAR - full)}   {row.passages:>4} of {row.probes}"
        )
    if as_json:
        click.echo(json.dumps({"rows": as_values(rows), "sentence": sentence(rows)}, indent=2))
    else:
        put(sentence(rows))
