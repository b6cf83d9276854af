"""What the commands of ``allmem eval`` share: options, models, results, tables."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from allmem_runtime.cli.messages import put, say
from allmem_runtime.cli.option_flags import Decorator
from allmem_runtime.cli.shared_options import (
    check_folder_of,
    engine_flags,
    json_file_option,
    plot_file_option,
)
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.asking import Asking, Score, even
from allmem_runtime.evaluation.items import Encoder, Item, PrefixIn, Style
from allmem_runtime.evaluation.loading import Models
from allmem_runtime.evaluation.results import Record, Results
from allmem_runtime.evaluation.rows import Group, Row, grouped, window_notices
from allmem_runtime.evaluation.tables import Table, plot
from allmem_runtime.model import Model
from allmem_runtime.plotting import check_plot


@dataclass(frozen=True, slots=True)
class Common:
    """What all evaluations have in common, as it was typed."""

    samples: int
    seed: int
    json_path: Path | None
    plot_path: Path | None
    engine: EngineOptions
    quiet: bool
    minutes: float | None = None
    other_weights: bool = False
    against: tuple[str, ...] = ()
    begun: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Progress."""
        if not self.quiet:
            say(text)

    def over(self) -> bool:
        """Whether ``--minutes`` have passed."""
        return self.minutes is not None and time.monotonic() - self.begun > 60 * self.minutes

    def grouped(self, rows: Sequence[Row]) -> list[Group]:
        """The rows by folder; they must share one decoder unless the user wants otherwise."""
        warn = say if self.other_weights else None
        return grouped(rows, warn=warn)

    def bases(self, rows: Sequence[Row]) -> list[str]:
        """The rows that the others are held against; none where there is one row only.

        Raises:
            UsageError: there is no row of this name.
        """
        names = [row.name for row in rows]
        for name in self.against:
            if name not in names:
                raise UsageError(
                    f"--against {name!r} is no row.", f"Rows: {', '.join(map(repr, names))}."
                )
        return list(dict.fromkeys(self.against or names[:1])) if len(names) > 1 else []

    def models(self) -> Models:
        """Where models come from."""
        return Models(self.engine)


def common_options(samples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options of every evaluation; the command gets them as one ``Common``."""
    options: list[Decorator] = [
        click.option("--samples", default=samples, show_default=True, type=click.IntRange(1),
                     help="Documents of each kind and length."),
        click.option("--seed", default=42, show_default=True, type=click.IntRange(0, 1 << 31),
                     help="Equal seeds, equal prompts."),
        json_file_option("Keep every result here as it is made; the same command goes on."),
        plot_file_option("Draw the tables (needs matplotlib)."),
        engine_flags,
        click.option("--quiet", is_flag=True, help="No progress."),
        click.option("--minutes", type=click.FloatRange(0, min_open=True),
                     help="Begin nothing after this time, and show the prompts that all rows "
                     "have answered; the same command with --json goes on."),
        click.option("--against", multiple=True, metavar="NAME",
                     help="Row to hold the others against, prompt by prompt; may be given "
                     "repeatedly.  [default: the first row]"),
        click.option("--other-weights", is_flag=True,
                     help="Only warn where rows have different decoders, types or files."),
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            names = [entry.name for entry in fields(Common) if entry.name in values]
            common = Common(**{name: values.pop(name) for name in names})
            if common.plot_path is not None:
                check_plot(common.plot_path)
            check_folder_of(common.json_path)
            command(common=common, **values)

        decorated: Callable[..., None] = wrapped
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

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
        self._rows = [row.name for row in rows]
        self.bases = common.bases(rows)
        self.groups: list[Group] = common.grouped(rows)
        self._models = common.models()
        model: Model = self._models.get(self.groups[0].package)
        chat = form == "chat" or (form == "auto" and not model.chat.plain)
        self._style = Style(chat, prefix_in)
        self.overhead = Encoder(model, self._style).overhead()
        self.results = Results(common.json_path)
        self._tokenizer = model.tokenizer

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode_text(text))

    def ask(self, items: Sequence[Item], score: Score, extra: Record | None = None) -> list[Record]:
        """The results of all items that every row has answered."""
        say_resumed(self._common, self.results)
        self._notice(items)
        values: Record = {
            "chat": self._style.chat,
            "answer_prefix": self._style.prefix_in,
            "seed": self._common.seed,
            **(extra or {}),
        }
        asking = Asking(
            self._models, self._style, score, self.results, self._common.say, values,
            self._common.over,
        )  # fmt: skip
        found = asking.run(self.groups, items)
        if asking.rescored:
            self._common.say(
                f"{asking.rescored} kept answers were scored anew: references or scoring changed"
            )
        complete = even(self._rows, found)
        total = sum(len(item.questions) for item in items)
        tell_unfinished(self._common, len(complete) // len(self._rows), total)
        return complete

    def _notice(self, items: Sequence[Item]) -> None:
        longest: dict[str, int] = {}
        for item in items:
            asked = max(self.count(q.text + q.prefix) + q.max_tokens for q in item.questions)
            tokens = self.count(item.document) + asked + self.overhead
            longest[item.column] = max(tokens, longest.get(item.column, 0))
        for line in window_notices(self.groups, longest):
            self._common.say(line)


def tell_unfinished(common: Common, done: int, total: int) -> None:
    """Say, with or without ``--quiet``, that the tables show less than was asked for."""
    if done < total:
        how = "the same command goes on" if common.json_path else "with --json it could go on"
        say(f"unfinished: all rows have answered {done} of {total} prompts; {how}")


def say_resumed(common: Common, results: Results) -> None:
    """Say how much need not be done again."""
    if results.found:
        common.say(f"{common.json_path}: {results.found} results are there already")


def show(
    common: Common, results: Results, kind: str, tables: Sequence[Table], **extra: object
) -> None:
    """Print the tables, keep them and draw them."""
    results.summary(
        {
            "evaluation": kind,
            "samples": common.samples,
            "seed": common.seed,
            "minutes": common.minutes,
            **extra,
            "tables": [table.as_json() for table in tables],
        }
    )
    for table in tables:
        put(*table.lines(), "")
    put("mean ± standard error; ? where one sample cannot tell")
    if common.plot_path is not None:
        plot(tables, common.plot_path)
