"""``allmem eval rows``: the model folders of a comparison, made from one checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_exporters.onnx.export_options import ExportOptions
from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.messages import put, say
from allmem_runtime.cli.option_flags import FilePath, option_flags, tokens
from allmem_runtime.cli.shared_options import command


@command()
@click.argument("checkpoint", type=FilePath())
@click.argument("folder", type=FilePath())
@click.option(
    "--longest",
    type=tokens(),
    default="8k",
    show_default=True,
    help="What the row with full attention sees: the longest prompt to come.",
)
@click.option(
    "--twin",
    type=FilePath(),
    help="Checkpoint with memories trained by --no-writes, for one more row.",
)
@option_flags(ExportOptions, without=("memory", "check", "check_tokens"))
def rows(
    checkpoint: Path, folder: Path, longest: int, twin: Path | None, options: ExportOptions
) -> None:
    """Make the rows of every table from CHECKPOINT in FOLDER.

    Full attention, window and sinks, AllMem, AllMem with writes off, and AllMem with the memory
    reset before the question; with windows by head, also AllMem with one window and as many rows.
    Weights that rows have in common lie on the disk once. FOLDER then stands for all of them:
    `allmem eval ruler FOLDER`.
    """
    from transformers.utils import logging

    from allmem_exporters.ablation.comparison_models import export_comparison_models

    logging.disable_progress_bar()
    with said_when_ended(f"models that were not finished are not in {folder}"):
        made = export_comparison_models(
            checkpoint,
            folder,
            options,
            longest=longest,
            twin=twin,
            report=say,
        )
    for row in made:
        put(f"{row.name}={row.folder}{':reset' if row.reset else ''}")
