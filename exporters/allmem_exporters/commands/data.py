"""`allmem data`: make training data from texts, questions and tasks, as a recipe says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.messages import draw, put, say
from allmem_runtime.cli.option_flags import FilePath, tokens
from allmem_runtime.cli.shared_options import command, json_flag


@command()
@click.argument("recipe", type=FilePath())
@click.argument("out", type=FilePath())
@click.option(
    "--checkpoint",
    type=FilePath(),
    help="Folder with the tokenizer and chat template; by default the recipe's.",
)
@click.option("--length", type=tokens(64), help="Tokens of a sequence.")
@click.option("--only", type=click.Choice(["train", "heldout"]), help="Make one split only.")
@click.option("--force", is_flag=True, help="Replace OUT if it holds training data.")
@json_flag("One JSON object instead of text.")
def data(
    recipe: Path,
    out: Path,
    checkpoint: Path | None,
    length: int | None,
    only: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make training data in the folder OUT from what RECIPE lists.

    RECIPE is a TOML file; relative paths in it start where it lies.
    """
    from allmem_exporters.errors import DataError
    from allmem_exporters.finetune.data.build import build
    from allmem_exporters.finetune.data.recipe import read_recipe
    from allmem_exporters.finetune.data.sequence import SPLITS
    from allmem_exporters.finetune.data.tokens import Tokens

    read = read_recipe(recipe)
    folder = checkpoint or read.checkpoint
    if folder is None:
        raise DataError(
            f"{recipe} names no checkpoint.", "Name one with --checkpoint, or in the recipe."
        )
    terminal = sys.stderr.isatty()

    def progress(done: int, total: int, name: str) -> None:
        if terminal and (done % 8 == 0 or done == total):
            draw(f"{done:>6} of {total} sequences  {name[:40]}")

    with said_when_ended(f"{out} is as it was before"):
        tallies = build(
            read,
            Tokens(folder),
            out,
            length=length,
            splits=(only,) if only else SPLITS,
            force=force,
            progress=progress,
        )
    if terminal:
        click.echo(err=True)
    rows = [
        {"source": name, "split": split, "wanted": t.wanted, "sequences": t.sequences,
         "tokens": t.tokens, "counted": t.counted}
        for (name, split), t in tallies.items()
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps({"folder": str(out), "sources": rows}))
        return
    put(f"{'source':<16}{'split':<9}{'sequences':>10}{'tokens':>12}{'loss tokens':>13}")
    for row in rows:
        put(
            f"{row['source']:<16}{row['split']:<9}{row['sequences']:>10}{row['tokens']:>12}"
            f"{row['counted']:>13}"
        )
    for (name, split), tally in tallies.items():
        if tally.sequences < tally.wanted:
            say(f"{name} has material for {tally.sequences} of {tally.wanted} {split} sequences.")
