"""What the commands of ``allmem eval`` share: options, models, results, tables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from allmem_runtime.errors import StorageError
from allmem_runtime.evaluation.asking import Asking, Models, Score
from allmem_runtime.evaluation.items import Encoder, Item, PrefixIn, Style
from allmem_runtime.evaluation.results import Record, Results
from allmem_runtime.evaluation.rows import Group, Row, grouped
from allmem_runtime.evaluation.tables import Table, check_plot, plot
from allmem_runtime.model import Model


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


def common_options(samples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
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


def prompt_options(command: Callable[..., None]) -> Callable[..., None]:
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


class Setting:
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
        say_resumed(self._common, self.results)
        values: Record = {
            "chat": self._style.chat,
            "answer_prefix": self._style.prefix_in,
            "seed": self._common.seed,
            **(extra or {}),
        }
        asking = Asking(self._models, self._style, score, self.results, self._common.say, values)
        return asking.run(self.groups, items)


def say_resumed(common: Common, results: Results) -> None:
    """Say how much need not be done again."""
    if results.found:
        common.say(f"{common.json_path}: {results.found} results are there already")


def show(common: Common, results: Results, kind: str, tables: Sequence[Table]) -> None:
    """Print the tables, keep them and draw them."""
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
