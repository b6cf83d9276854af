"""``allmem eval drift``: whether a memory stays sound over one very long text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import allmem_runtime.evaluation.drift as drift_task
from allmem_runtime.cli.evaluate_options import Common, common_options, say_resumed, show
from allmem_runtime.cli.messages import say
from allmem_runtime.cli.option_flags import tokens
from allmem_runtime.cli.shared_options import command
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.results import Results
from allmem_runtime.evaluation.rows import is_row, parse_rows
from allmem_runtime.quantities import format_tokens


@command()
@click.argument("arguments", nargs=-1, required=True, metavar="ROW… TEXT…")
@click.option("--length", type=tokens(), default="200k", show_default=True,
              help="Tokens that are read in one go.")  # fmt: skip
@click.option("--step", type=tokens(), default="20k", show_default=True,
              help="Tokens of a stretch; the last is held against the second.")  # fmt: skip
@common_options(samples=1)
def drift(arguments: Sequence[str], length: int, step: int, common: Common) -> None:
    """Read one long text in one go: perplexity and growth of the fast weights along it.

    The texts are read one after the other from a blank state. With --json the same command goes on
    where it was cut off; the sessions of unfinished rows lie beside that file. Rows with :reset
    are left out.
    """
    rows = parse_rows([a for a in arguments if is_row(a)])
    texts = [Path(a) for a in arguments if not is_row(a)]
    if not rows or not texts:
        raise UsageError("Rows or texts are missing.", "Give NAME=FOLDER … and text files.")
    if 2 * step > length:
        raise UsageError(
            f"--length {format_tokens(length)} has no two stretches of {format_tokens(step)}.",
            "Make --step shorter.",
        )
    rows = [row for row in rows if not row.reset]
    if not rows:
        raise UsageError("All rows forget their memory; they cannot drift.", "Leave :reset out.")
    groups, models = common.grouped(rows), common.models()
    encode = models.get(groups[0].package).tokenizer.encode_text
    ids = drift_task.read_ids(texts, encode, length)
    results = Results(common.json_path)
    say_resumed(common, results)
    work = drift_task.Drift(models, results, common.say, common.over, common.json_path)
    found = work.run(groups, ids, step)
    for name, records in found.items():
        if not records or records[-1]["end"] < length:
            read = records[-1]["end"] if records else 0
            say(f"unfinished: {name!r} has read {read:,} of {length:,} tokens")
    tables = drift_task.tables(found, length, step)
    show(common, results, "drift", tables, length=length, step=step)
