"""``allmem eval rows``: the model folders of a comparison, made from one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from allmem_runtime.cli.shared_options import command
from allmem_runtime.evaluation.lengths import parse_length


@command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--window", type=int, help="Tokens the attention sees.  [default: checkpoint's]")
@click.option("--sinks", type=int, help="First tokens that stay visible.")
@click.option("--chunk", type=int, help="Tokens between commits.")
@click.option(
    "--longest",
    default="8k",
    show_default=True,
    help="What the row with full attention sees: the longest prompt to come.",
)
@click.option(
    "--twin",
    type=click.Path(path_type=Path),
    help="Checkpoint with memories trained by --no-writes, for one more row.",
)
@click.option("--weights", help="How matrices are stored, as in `allmem export`.")
@click.option("--products", help="Who multiplies int8 and int4, as there.")
@click.option("--activations", default="float32", show_default=True, help="As there.")
@click.option("--kv", help="How keys and values are kept, as there.")
@click.option("--force", is_flag=True, help="Replace model folders that hold something else.")
def rows(checkpoint: Path, folder: Path, longest: str, **options: Any) -> None:
    """Make the rows of every table from CHECKPOINT in FOLDER.

    Full attention, window and sinks, AllMem, AllMem with writes off, and AllMem with the memory
    reset before the question. Weights that rows have in common lie on the disk once. FOLDER then
    stands for all of them: `allmem eval ruler FOLDER`.
    """
    from transformers.utils import logging

    from allmem_exporters.ablation.comparison_models import export_comparison_models

    logging.disable_progress_bar()
    made = export_comparison_models(
        checkpoint,
        folder,
        longest=parse_length(longest),
        report=lambda line: click.echo(line, err=True),
        **options,
    )
    for row in made:
        click.echo(f"{row.name}={row.folder}{':reset' if row.reset else ''}")
