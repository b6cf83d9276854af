"""`allmem heads`: find the key/value heads whose reach carries recall."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.messages import put_path, say
from allmem_runtime.cli.option_flags import FilePath, tokens
from allmem_runtime.cli.shared_options import command


@command()
@click.argument("checkpoint", type=FilePath(exists=True, file_okay=False))
@click.argument("data", type=FilePath(exists=True, file_okay=False))
@click.argument("out", type=FilePath(dir_okay=False))
@click.option(
    "--shortest", type=tokens(), default=256, show_default=True, help="Window of every head."
)
@click.option("--sinks", type=tokens(0), default=32, show_default=True, help="First tokens seen.")
@click.option("--length", type=tokens(64), help="Cut sequences to this many tokens.")
@click.option(
    "--sequences",
    type=click.IntRange(1, 1000),
    default=2,
    show_default=True,
    help="Sequences of each kind; one of 2k tokens takes about a minute with 135M parameters.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the decoder's products; bfloat16 is faster where the CPU has it.",
)
@click.option("--plot", type=FilePath(dir_okay=False), help="A heat map as PNG.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.")
def heads(
    checkpoint: Path,
    data: Path,
    out: Path,
    shortest: int,
    sinks: int,
    length: int | None,
    sequences: int,
    precision: str,
    plot: Path | None,
    threads: int | None,
) -> None:
    """Measure what the reach of each key/value head of CHECKPOINT is worth, on DATA, and write OUT.

    DATA is a folder made by `allmem data` for this model. The table OUT is for
    `allmem export --windows`, which gives every head a window by it. Interrupt it at any time; the
    same command goes on.
    """
    # Imported here: PyTorch takes seconds to load, and `--help` should not.
    from transformers.utils import logging

    from allmem_exporters.heads.run import HeadSettings, find_heads
    from allmem_runtime.plotting import check_plot

    if plot is not None:
        check_plot(plot)
    logging.disable_progress_bar()
    settings = HeadSettings(shortest, sinks, length, sequences, precision, threads)
    with said_when_ended("the same command goes on where this one was"):
        table = find_heads(checkpoint, data, out, settings, report=say)
    if plot is not None:
        from allmem_exporters.heads.picture import draw

        draw(table, plot)
    put_path(out)
