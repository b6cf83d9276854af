"""``allmem info``: what a model or a saved session is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from allmem_runtime.info import is_session, model_info, model_lines, session_info, session_lines


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path), metavar="MODEL|SESSION")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def info(path: Path, as_json: bool) -> None:
    """Say what a model or a saved session is, without loading it.

    For a model: its architecture, the parts of its state in bytes (they never grow), weights,
    operators, where it came from, and the cache of full attention that the state replaces. For a
    session: how much it has read of what, its model and the session it was forked from. A
    session file holds no text.
    """
    if is_session(path):
        values = session_info(path)
        lines = session_lines(values)
    else:
        values = model_info(path)
        lines = model_lines(values)
    click.echo(json.dumps(values, indent=2) if as_json else "\n".join(lines))
