"""``allmem eval``: what models remember, row by row, through the runtime that serves them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import allmem_runtime.evaluation.longbench as longbench_task
import allmem_runtime.evaluation.needle as needle_task
import allmem_runtime.evaluation.perplexity as perplexity_task
import allmem_runtime.evaluation.ruler as ruler_task
from allmem_runtime.errors import StorageError, UsageError
from allmem_runtime.evaluation import ruler_package
from allmem_runtime.evaluation.asking import Asking, Models, Score, table_of
from allmem_runtime.evaluation.items import Encoder, Item, PrefixIn, Style
from allmem_runtime.evaluation.lengths import length_name, parse_length, parse_lengths
from allmem_runtime.evaluation.numbers import average
from allmem_runtime.evaluation.results import Record, Results
from allmem_runtime.evaluation.rows import Group, Row, grouped, parse_rows
from allmem_runtime.evaluation.tables import Table, check_plot, plot
from allmem_runtime.model import Model

_SETTINGS = {"help_option_names": ["-h", "--help"]}
_AVERAGE = "average of all tasks"


@click.group("eval", context_settings=_SETTINGS)
def evaluate() -> None:
    """Measure what models remember of long texts.

    ROW is NAME=MODEL_FOLDER, one for each row of the table. NAME=MODEL_FOLDER:reset blanks the
    memory between the document and the question, so that only the window is left to answer.
    All rows get the same prompts. Tables go to standard output, progress to standard error.
    """


@dataclass(frozen=True, slots=True)
class Common:
    """What all evaluations have in common, as it was typed."""

    samples: int
    seed: int
    json_path: Path | None
    plot_path: Path | None
    device: str
    operators: str
    threads: int | None
    quiet: bool

    def say(self, text: str) -> None:
        """Progress."""
        if not self.quiet:
            click.echo(text, err=True)


def _common(samples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options of every evaluation; the command gets them as one ``Common``."""
    options = [
        click.option("--samples", default=samples, show_default=True, type=click.IntRange(1),
                     help="Documents of each kind and length."),
        click.option("--seed", default=42, show_default=True, type=click.IntRange(0, 1 << 31),
                     help="Equal seeds, equal prompts."),
        click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path),
                     help="Keep every result here as it is made; the same command goes on."),
        click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path),
                     help="Draw the tables (needs matplotlib)."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:N]."),
        click.option("--operators", default="auto", show_default=True,
                     help="auto, native, portable, or a library."),
        click.option("--threads", type=click.IntRange(1), help="CPU threads of a step."),
        click.option("--quiet", is_flag=True, help="No progress."),
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            names = Common.__dataclass_fields__
            common = Common(**{name: values.pop(name) for name in names})
            if common.plot_path is not None:
                check_plot(common.plot_path)
            if common.json_path is not None and not common.json_path.parent.is_dir():
                raise StorageError(
                    f"There is no folder {common.json_path.parent}.", "Make it, or name another."
                )
            command(common=common, **values)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _prompting(command: Callable[..., None]) -> Callable[..., None]:
    """Options of evaluations that ask questions."""
    command = click.option(
        "--format", "form", type=click.Choice(["auto", "chat", "text"]), default="auto",
        show_default=True,
        help="chat: document and question in the user's turn of the model's template; text: plain "
        "text to continue; auto: chat if the model has a template.",
    )(command)  # fmt: skip
    return click.option(
        "--answer-prefix", "prefix_in", type=click.Choice(["assistant", "user"]),
        default="assistant", show_default=True,
        help="Whose turn holds the beginning of the answer that a benchmark gives.",
    )(command)  # fmt: skip


_LENGTHS = click.option(
    "--lengths",
    default="2k,4k,8k,16k,32k",
    show_default=True,
    help="Columns, in the models' own tokens; 2k is 2,048.",
)


@evaluate.command(context_settings=_SETTINGS)
@click.argument("arguments", nargs=-1, required=True, metavar="ROW… TEXT…")
@click.option("--length", "length_text", default="8k", show_default=True,
              help="Tokens of a segment; each is read from a blank state.")  # fmt: skip
@click.option("--buckets", help="Bounds of the buckets, such as 0,2k,8k,32k.")
@_common(samples=16)
def perplexity(
    arguments: Sequence[str], length_text: str, buckets: str | None, common: Common
) -> None:
    """Nats per token and perplexity by position, of plain texts.

    The texts are cut into segments of --length tokens; --samples of them, chosen by the seed, are
    read by every row. Errors are over segments. Without --buckets the bounds are 2k, 4k, 6k and
    8k, then doubled. A row with :reset forgets its memory at every 2k.
    """
    rows = parse_rows([a for a in arguments if "=" in a])
    texts = [Path(a) for a in arguments if "=" not in a]
    if not rows or not texts:
        raise UsageError("Rows or texts are missing.", "Give NAME=FOLDER … and text files.")
    length = parse_length(length_text)
    edges = perplexity_task.edges_of(length)
    if buckets is not None:
        bounds = [0 if part.strip() == "0" else parse_length(part) for part in buckets.split(",")]
        edges = perplexity_task.check_edges(bounds, length)
    groups, models = grouped(rows), Models(common.device, common.operators, common.threads)
    model = models.get(groups[0].package.folder)
    parts = perplexity_task.segments(
        texts, model.tokenizer.encode_text, length, common.samples, common.seed
    )
    results = Results(common.json_path)
    _say_resumed(common, results)
    work = perplexity_task.Perplexity(models, results, common.say, edges)
    tables = work.tables([row.name for row in rows], work.run(groups, parts))
    _show(common, results, "perplexity", tables)


@evaluate.command(context_settings=_SETTINGS)
@click.argument("rows", nargs=-1, required=True, metavar="ROW…")
@_LENGTHS
@click.option("--depths", default=5, show_default=True, type=click.IntRange(1),
              help="Needles a document, evenly from its beginning to its end.")  # fmt: skip
@click.option("--haystack", type=click.Path(dir_okay=False, path_type=Path),
              help="Text to hide the needles in; made up otherwise.")  # fmt: skip
@_prompting
@_common(samples=10)
def needle(
    rows: Sequence[str], lengths: str, depths: int, haystack: Path | None, form: str,
    prefix_in: PrefixIn, common: Common,
) -> None:  # fmt: skip
    """Recall of numbers hidden in a text, by depth and length.

    Every document holds one number at each depth and is read once by each model; each number is
    asked of that same reading.
    """
    parsed, columns = parse_rows(rows), parse_lengths(lengths)
    setting = _Setting(parsed, form, prefix_in, common)
    hay = needle_task.sentences(haystack) if haystack is not None else None
    items = needle_task.needle_items(
        columns, depths, common.samples, common.seed, setting.count, setting.overhead, hay
    )
    records = setting.ask(items, needle_task.needle_score)
    names = [row.name for row in parsed]
    heads = [length_name(length) for length in columns]
    tables = [table_of("needle: recall at all depths, %", names, heads, records)]
    for row in parsed:
        own = [record for record in records if record["row"] == row.name]
        steps = sorted({record["depth"] for record in own})
        by_depth = Table(
            f"needle: {row.name}, depth by length, %", [f"{s} %" for s in steps], heads
        )
        for step in steps:
            here = [record for record in own if record["depth"] == step]
            found = table_of("", [row.name], heads, here)
            by_depth.cells |= {(f"{step} %", head): found.cells[row.name, head] for head in heads}
        tables.append(by_depth)
    _show(common, setting.results, "needle", tables)


@evaluate.command(context_settings=_SETTINGS)
@click.argument("rows", nargs=-1, required=True, metavar="ROW…")
@_LENGTHS
@click.option("--tasks", default=",".join(ruler_package.TASKS), help="Which tasks; all by default.")
@_prompting
@_common(samples=20)
def ruler(
    rows: Sequence[str], lengths: str, tasks: str, form: str, prefix_in: PrefixIn, common: Common
) -> None:
    """The tasks of RULER, with the prompts and the scoring of nvidia-long-context-eval.

    The package is not part of this one: `pip install --no-deps nvidia-long-context-eval`, then
    `pip install 'allmem-runtime[eval]'`.
    """
    parsed, columns = parse_rows(rows), parse_lengths(lengths)
    chosen = [name.strip() for name in tasks.split(",")]
    for name in chosen:
        if name not in ruler_package.TASKS or chosen.count(name) > 1:
            raise UsageError(
                f"--tasks has {name!r}.", f"Each at most once of {', '.join(ruler_package.TASKS)}."
            )
    known = {name: ruler_package.task(name) for name in chosen}
    setting = _Setting(parsed, form, prefix_in, common)
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
    heads = [length_name(length) for length in columns]
    tables = [
        table_of(name, names, heads, [r for r in records if r["task"] == name]) for name in chosen
    ]
    if len(tables) > 1:
        mean_table = Table(_AVERAGE, names, heads)
        for key in tables[0].cells:
            mean_table.cells[key] = average([table.cells[key] for table in tables])
        tables.append(mean_table)
    _show(common, setting.results, "ruler", tables)


@evaluate.command(context_settings=_SETTINGS)
@click.argument("arguments", nargs=-1, required=True, metavar="ROW… FILE.jsonl…")
@click.option("--prompts", type=click.Path(dir_okay=False, path_type=Path),
              help="LongBench's dataset2prompt.json; plain prompts of ours otherwise.")  # fmt: skip
@click.option("--answer-tokens", type=click.Path(dir_okay=False, path_type=Path),
              help="LongBench's dataset2maxlen.json; else 64, and 512 for summaries.")  # fmt: skip
@click.option("--longest", help="Leave contexts with more tokens out, such as 8k.")
@_prompting
@_common(samples=20)
def longbench(
    arguments: Sequence[str], prompts: Path | None, answer_tokens: Path | None,
    longest: str | None, form: str, prefix_in: PrefixIn, common: Common,
) -> None:  # fmt: skip
    """Local files in LongBench's format, by the published metric of each dataset.

    Prompts are never cut: what is longer than a window is read all the same.
    """
    parsed = parse_rows([a for a in arguments if "=" in a])
    files = [Path(a) for a in arguments if "=" not in a]
    if not parsed or not files:
        raise UsageError("Rows or files are missing.", "Give NAME=FOLDER … and .jsonl files.")
    records = longbench_task.read(files)
    setting = _Setting(parsed, form, prefix_in, common)
    items, left_out = longbench_task.longbench_items(
        records,
        common.samples,
        longbench_task.read_table(prompts, str) if prompts is not None else {},
        longbench_task.read_table(answer_tokens, int) if answer_tokens is not None else {},
        setting.count,
        None if longest is None else parse_length(longest),
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
    _show(common, setting.results, "longbench", [table])


class _Setting:
    """Everything an evaluation with questions works with."""

    def __init__(self, rows: Sequence[Row], form: str, prefix_in: PrefixIn, common: Common) -> None:
        self._common = common
        self.groups: list[Group] = grouped(rows)
        self._models = Models(common.device, common.operators, common.threads)
        model: Model = self._models.get(self.groups[0].package.folder)
        chat = form == "chat" or (form == "auto" and not model.chat.plain)
        self._style = Style(chat, prefix_in)
        self.overhead = Encoder(model, self._style).overhead()
        self.results = Results(common.json_path)
        self._tokenizer = model.tokenizer

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode_text(text))

    def ask(self, items: Sequence[Item], score: Score, extra: Record | None = None) -> list[Record]:
        """All rows' results for all items."""
        _say_resumed(self._common, self.results)
        values: Record = {
            "chat": self._style.chat,
            "answer_prefix": self._style.prefix_in,
            "seed": self._common.seed,
            **(extra or {}),
        }
        asking = Asking(self._models, self._style, score, self.results, self._common.say, values)
        return asking.run(self.groups, items)


def _say_resumed(common: Common, results: Results) -> None:
    if results.found:
        common.say(f"{common.json_path}: {results.found} results are there already")


def _show(common: Common, results: Results, kind: str, tables: Sequence[Table]) -> None:
    results.summary(
        {
            "evaluation": kind,
            "samples": common.samples,
            "seed": common.seed,
            "tables": [table.as_json() for table in tables],
        }
    )
    click.echo("\n\n".join("\n".join(table.lines()) for table in tables))
    click.echo("\nmean ± standard error; ? where one sample cannot tell")
    if common.plot_path is not None:
        plot(tables, common.plot_path)
