"""``allmem eval``: what models remember, row by row, through the runtime that serves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import allmem_runtime.evaluation.longbench as longbench_task
import allmem_runtime.evaluation.needle as needle_task
import allmem_runtime.evaluation.perplexity as perplexity_task
import allmem_runtime.evaluation.ruler as ruler_task
from allmem_runtime.cli.evaluate_drift import drift
from allmem_runtime.cli.evaluate_options import (
    Common,
    Setting,
    common_options,
    prompt_options,
    say_resumed,
    show,
    tell_unfinished,
)
from allmem_runtime.cli.lazy_group import LazyCommand, LazyGroup
from allmem_runtime.cli.option_flags import FilePath, token_list, tokens
from allmem_runtime.cli.shared_options import HELP_NAMES
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation import ruler_package
from allmem_runtime.evaluation.asking import apart, even, table_of, tables_of
from allmem_runtime.evaluation.items import Item, PrefixIn
from allmem_runtime.evaluation.numbers import average
from allmem_runtime.evaluation.results import Results
from allmem_runtime.evaluation.rows import is_row, parse_rows, window_notices
from allmem_runtime.evaluation.tables import Table
from allmem_runtime.quantities import format_tokens

_ROWS = LazyCommand(
    "allmem_exporters.commands.comparison_models",
    "rows",
    "Make the rows of every table from CHECKPOINT in FOLDER.",
)


@click.group("eval", cls=LazyGroup, lazy={"rows": _ROWS}, context_settings=HELP_NAMES)
def evaluate() -> None:
    """Measure what models remember of long texts.

    ROW is NAME=MODEL_FOLDER, one for each row of the table. NAME=MODEL_FOLDER:reset blanks the
    memory between the document and the question, so that only the window is left to answer.
    A folder made by `allmem eval rows` stands for the five rows in it. All rows get the same
    prompts. Tables go to standard output, progress to standard error.
    """


evaluate.add_command(drift)

_LENGTHS = click.option(
    "--lengths",
    "columns",
    type=token_list(),
    default="2k,4k,8k,16k,32k",
    show_default=True,
    help="Columns, in the models' own tokens; 2k is 2,048.",
)


@evaluate.command(context_settings=HELP_NAMES)
@click.argument("arguments", nargs=-1, required=True, metavar="ROW… TEXT…")
@click.option("--length", type=tokens(), default="8k", show_default=True,
              help="Tokens of a segment; each is read from a blank state.")  # fmt: skip
@click.option("--buckets", type=token_list(0), help="Bounds of the buckets, such as 0,2k,8k,32k.")
@common_options(samples=16)
def perplexity(
    arguments: Sequence[str], length: int, buckets: list[int] | None, common: Common
) -> None:
    """Nats per token and perplexity by position, of plain texts.

    The texts are cut into segments of --length tokens; --samples of them, chosen by the seed, are
    read by every row. Errors are over segments. Without --buckets the bounds are 2k, 4k, 6k and
    8k, then doubled. A row with :reset forgets its memory at every 2k.
    """
    rows = parse_rows([a for a in arguments if is_row(a)])
    texts = [Path(a) for a in arguments if not is_row(a)]
    if not rows or not texts:
        raise UsageError("Rows or texts are missing.", "Give NAME=FOLDER … and text files.")
    edges = perplexity_task.edges_of(length)
    if buckets is not None:
        edges = perplexity_task.check_edges(buckets, length)
    bases, groups, models = common.bases(rows), common.grouped(rows), common.models()
    model = models.get(groups[0].package)
    parts = perplexity_task.segments(
        texts, model.tokenizer.encode_text, length, common.samples, common.seed
    )
    results = Results(common.json_path)
    say_resumed(common, results)
    for line in window_notices(groups, {"all texts": max(len(part.ids) for part in parts)}):
        common.say(line)
    work = perplexity_task.Perplexity(models, results, common.say, edges, common.over)
    names = [row.name for row in rows]
    found = even(names, work.run(groups, parts))
    tell_unfinished(common, len(found) // len(names), len(parts))
    show(common, results, "perplexity", work.tables(names, found, bases))


@evaluate.command(context_settings=HELP_NAMES)
@click.argument("rows", nargs=-1, required=True, metavar="ROW…")
@_LENGTHS
@click.option("--depths", default=5, show_default=True, type=click.IntRange(1),
              help="Needles in each document, evenly from its beginning to its end.")  # fmt: skip
@click.option("--haystack", type=FilePath(dir_okay=False),
              help="Text to hide the needles in; made up otherwise.")  # fmt: skip
@prompt_options
@common_options(samples=10)
def needle(
    rows: Sequence[str], columns: list[int], depths: int, haystack: Path | None, form: str,
    prefix_in: PrefixIn, common: Common,
) -> None:  # fmt: skip
    """Recall of numbers hidden in a text, by depth and length.

    Every document holds one number at each depth and is read once by each model; each number is
    asked of that same reading.
    """
    parsed = parse_rows(rows)
    setting = Setting(parsed, form, prefix_in, common)
    hay = needle_task.sentences(haystack) if haystack is not None else None
    items = needle_task.needle_items(
        columns, depths, common.samples, common.seed, setting.count, setting.overhead, hay
    )
    records = setting.ask(items, needle_task.needle_score)
    names = [row.name for row in parsed]
    heads = [format_tokens(length) for length in columns]
    tables = [table_of("needle: recall at all depths, %", names, heads, records)]
    for row in parsed:
        own = [record for record in records if record["row"] == row.name]
        steps = sorted({record["depth"] for record in own})
        if not steps:
            continue
        by_depth = Table(
            f"needle: {row.name}, depth by length, %", [f"{s} %" for s in steps], heads
        )
        for step in steps:
            here = [record for record in own if record["depth"] == step]
            found = table_of("", [row.name], heads, here)
            by_depth.cells |= {(f"{step} %", head): found.cells[row.name, head] for head in heads}
        tables.append(by_depth)
    tables[1:1] = [apart(base, names, heads, records) for base in setting.bases]
    show(common, setting.results, "needle", tables)


@evaluate.command(context_settings=HELP_NAMES)
@click.argument("rows", nargs=-1, required=True, metavar="ROW…")
@_LENGTHS
@click.option("--tasks", default=",".join(ruler_package.TASKS), help="Which tasks; all by default.")
@prompt_options
@common_options(samples=20)
def ruler(
    rows: Sequence[str],
    columns: list[int],
    tasks: str,
    form: str,
    prefix_in: PrefixIn,
    common: Common,
) -> None:
    """The tasks of RULER, with the prompts and the scoring of nvidia-long-context-eval.

    The package is not part of this one: `pip install --no-deps nvidia-long-context-eval`, then
    `pip install 'allmem-runtime[eval]'`.
    """
    parsed = parse_rows(rows)
    chosen = [name.strip() for name in tasks.split(",")]
    for name in chosen:
        if name not in ruler_package.TASKS or chosen.count(name) > 1:
            raise UsageError(
                f"--tasks has {name!r}.", f"Each at most once of {', '.join(ruler_package.TASKS)}."
            )
    known = {name: ruler_package.task(name) for name in chosen}
    setting = Setting(parsed, form, prefix_in, common)
    tokenizer = setting.groups[0].package.tokenizer
    items: list[Item] = []
    for name, task in known.items():
        common.say(f"making the prompts of {name}")
        items += ruler_task.ruler_items(
            task, columns, common.samples, common.seed, tokenizer, setting.overhead
        )
    records = setting.ask(
        items,
        lambda answer, question, item: known[item.task].score(answer, question.references),
        {"benchmark": f"{ruler_package.DISTRIBUTION} {ruler_package.version()}"},
    )
    names = [row.name for row in parsed]
    heads = [format_tokens(length) for length in columns]
    tables = tables_of(chosen, names, heads, records)
    tables += [apart(base, names, heads, records) for base in setting.bases]
    show(common, setting.results, "ruler", tables)


@evaluate.command(context_settings=HELP_NAMES)
@click.argument("arguments", nargs=-1, required=True, metavar="ROW… FILE.jsonl…")
@click.option("--prompts", type=FilePath(dir_okay=False),
              help="LongBench's dataset2prompt.json; plain prompts of ours otherwise.")  # fmt: skip
@click.option("--answer-tokens", type=FilePath(dir_okay=False),
              help="LongBench's dataset2maxlen.json; else 64, and 512 for summaries.")  # fmt: skip
@click.option("--longest", type=tokens(), help="Leave contexts with more tokens out, such as 8k.")
@prompt_options
@common_options(samples=20)
def longbench(
    arguments: Sequence[str], prompts: Path | None, answer_tokens: Path | None,
    longest: int | None, form: str, prefix_in: PrefixIn, common: Common,
) -> None:  # fmt: skip
    """Local files in LongBench's format, by the published metric of each dataset.

    Prompts are never cut: what is longer than a window is read all the same.
    """
    parsed = parse_rows([a for a in arguments if is_row(a)])
    files = [Path(a) for a in arguments if not is_row(a)]
    if not parsed or not files:
        raise UsageError("Rows or files are missing.", "Give NAME=FOLDER … and .jsonl files.")
    records = longbench_task.read(files)
    setting = Setting(parsed, form, prefix_in, common)
    items, left_out = longbench_task.longbench_items(
        records,
        common.samples,
        longbench_task.read_table(prompts, str) if prompts is not None else {},
        longbench_task.read_table(answer_tokens, int) if answer_tokens is not None else {},
        setting.count,
        longest,
    )
    if left_out:
        common.say(f"{left_out} contexts are longer than --longest and were left out")
    if not items:
        raise UsageError("No context is left to read.", "Raise --longest.")
    found = setting.ask(items, longbench_task.longbench_score)
    names = [row.name for row in parsed]
    columns = list(dict.fromkeys(item.column for item in items))
    table = table_of("LongBench, by each dataset's own metric, %", names, columns, found)
    if len(columns) > 1:
        for name in names:
            cells = [table.cells[name, column] for column in columns]
            table.cells[name, "average"] = average(cells)
        table.columns = [*columns, "average"]
    tables = [table, *(apart(base, names, columns, found) for base in setting.bases)]
    show(common, setting.results, "longbench", tables)
