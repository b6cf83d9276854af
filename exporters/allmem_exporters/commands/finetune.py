"""`allmem finetune`: train a checkpoint's memories against its own full attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.messages import put_path, say
from allmem_runtime.cli.option_flags import FilePath, tokens
from allmem_runtime.cli.shared_options import command, json_flag
from allmem_runtime.quantities import format_duration


@command()
@click.argument("checkpoint", type=FilePath(exists=True, file_okay=False))
@click.argument("data", type=FilePath(exists=True, file_okay=False))
@click.argument("out", type=FilePath(file_okay=False))
@click.option(
    "--settings",
    "settings_file",
    type=FilePath(exists=True, dir_okay=False),
    help="A TOML file; options given here win over it.",
)
@click.option("--stage", help="layers or model.  [default: model]")
@click.option("--steps", type=int, help="Optimizer steps.  [default: 1000]")
@click.option("--batch", type=int, help="Sequences of a step.  [default: 1]")
@click.option("--length", type=tokens(), help="Cut sequences to this many tokens.")
@click.option("--seed", type=int, help="Of order and draws.  [default: 0]")
@click.option("--precision", help="auto, float32 or bfloat16.  [default: auto]")
@click.option("--writes/--no-writes", default=None, help="Train the twin that never writes.")
@click.option(
    "--start",
    type=FilePath(exists=True, dir_okay=False),
    help="Begin with this adapter.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.")
@json_flag("Print the adapter's manifest as JSON.")
def finetune(
    checkpoint: Path,
    data: Path,
    out: Path,
    settings_file: Path | None,
    start: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
    **changes: Any,
) -> None:
    """Train the memories of CHECKPOINT on DATA; the adapter and the run go to OUT.

    The decoder stays frozen and is its own teacher: the memories learn to make up for what the
    window hides. Interrupt it at any time; the same command goes on.
    """
    import torch
    from transformers.utils import logging

    from allmem_exporters.finetune.run import ADAPTER_FILE
    from allmem_exporters.finetune.run import finetune as run
    from allmem_exporters.finetune.settings import from_dict, read_settings
    from allmem_exporters.finetune.trainer import Step

    given = {name: value for name, value in changes.items() if value is not None}
    settings = read_settings(settings_file, given) if settings_file else from_dict(given)
    logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    lasted: list[float] = []

    def show(step: Step) -> None:
        lasted.append(step.seconds)
        left = sum(lasted) / len(lasted) * (step.steps - step.number)
        skipped = f"  {step.skipped} skipped" if step.skipped else ""
        say(
            f"step {step.number}/{step.steps}  loss {step.loss:.4f}  {step.tokens:,} tokens  "
            f"{step.seconds:.1f} s a step  {format_duration(left)} left{skipped}"
        )

    with said_when_ended(f"the run is kept in {out}, the same command goes on"):
        manifest = run(
            checkpoint, data, out, settings, start=start, device=device, show=show,
            report=say,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(manifest))
    else:
        put_path(out / ADAPTER_FILE)
