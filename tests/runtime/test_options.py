"""Options declared once become flags and keywords, in today's spelling and in earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from allmem_runtime import UsageError, load
from allmem_runtime.cli import allmem
from allmem_runtime.cli.option_flags import option_flags
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.options import check_choices, declared_options, from_keywords, option
from allmem_runtime.quantities import parse_tokens


@dataclass(frozen=True, slots=True)
class Tea:
    """Options of a kettle."""

    leaves: str | None = option(
        None,
        "Which leaves.",
        default_note="what is there",
        choices=("green", "black"),
        former_choices={"dark": "black"},
        former=("sort",),
    )
    water: int = option(512, "How much.", parse=parse_tokens, metavar="TOKENS")
    milk: bool = option(False, "With milk.")
    sugar: bool = option(True, "With sugar.")
    kind: str = option("cup", "Which vessel.", flag="tea-vessel")
    secret: int | None = option(None, "Python's only.", on_command_line=False)

    def __post_init__(self) -> None:
        check_choices(self, UsageError)


@click.command()
@option_flags(Tea, "tea")
def brew(tea: Tea) -> None:
    """Say what was understood."""
    click.echo(repr(tea))


def brewed(*arguments: str) -> str:
    done = CliRunner().invoke(brew, list(arguments), catch_exceptions=False)
    return done.output.strip()


@pytest.mark.parametrize(
    ("arguments", "tea"),
    [
        pytest.param([], Tea(), id="defaults"),
        pytest.param(["--leaves", "green"], Tea(leaves="green"), id="flag"),
        pytest.param(["--sort", "green"], Tea(leaves="green"), id="earlier flag"),
        pytest.param(["--leaves", "dark"], Tea(leaves="black"), id="earlier choice"),
        pytest.param(["--water", "2k"], Tea(water=2048), id="parsed"),
        pytest.param(["--milk"], Tea(milk=True), id="switch on"),
        pytest.param(["--no-sugar"], Tea(sugar=False), id="switch off"),
        pytest.param(["--tea-vessel", "pot"], Tea(kind="pot"), id="flag of another name"),
    ],
)
def test_flags_make_options(arguments: list[str], tea: Tea) -> None:
    assert brewed(*arguments) == repr(tea)


def test_help_shows_the_spellings_of_today_and_every_default() -> None:
    text = " ".join(brewed("--help").split())
    assert "--leaves [green|black]" in text and "[default: what is there]" in text
    assert "--sort" not in text and "dark" not in text and "--secret" not in text
    assert "--water TOKENS" in text and "[default: 512]" in text
    assert "--sugar / --no-sugar" in text and "--no-milk" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--leaves", "red"], "'--leaves': 'red' is not one of 'green', 'black'"),
        (["--water", "much"], "'--water': 'much' is no number of tokens"),
        (["--sort", "red"], "'--leaves': 'red' is not one of"),
        (["--secret", "1"], "No such option"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_flag(arguments: list[str], says: str) -> None:
    assert says in brewed(*arguments)


@pytest.mark.parametrize(
    ("given", "tea"),
    [
        ({"leaves": "green"}, Tea(leaves="green")),
        ({"sort": "dark"}, Tea(leaves="black")),
        ({"tea_vessel": "pot"}, Tea(kind="pot")),
        ({"secret": 3, "water": 7}, Tea(secret=3, water=7)),
    ],
)
def test_keywords_make_options_in_any_spelling(given: dict[str, Any], tea: Tea) -> None:
    assert from_keywords(Tea, given, UsageError) == tea


def test_keywords_count_more_than_options() -> None:
    base = Tea(leaves="green", water=7)
    assert from_keywords(Tea, {"water": 8}, UsageError, base) == Tea(leaves="green", water=8)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"leafs": "green"}, "Unknown option 'leafs'.*known are leaves, water"),
        ({"leaves": "green", "sort": "black"}, "leaves is given twice"),
        ({"leaves": "red"}, "leaves is 'red'; allowed: green, black"),
    ],
)
def test_keywords_that_cannot_be_meant_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        from_keywords(Tea, given, UsageError)


# The options of a model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["run", "bench", "answer", "eval needle", "eval perplexity", "eval drift"]
)
def test_every_command_that_loads_a_model_has_the_flags_of_the_engine(command: str) -> None:
    text = CliRunner().invoke(allmem, [*command.split(), "--help"], catch_exceptions=False).output
    for entry in declared_options(EngineOptions):
        assert (entry.flag in text) == entry.declared.on_command_line, entry.flag


def test_a_model_is_loaded_with_options_or_keywords(toy_dir: Path) -> None:
    given = load(toy_dir, EngineOptions(device="cpu", operators="portable"), threads=1)
    assert (given.engine.threads, given.operators) == (1, "portable")


def test_an_unknown_option_of_a_model_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown option 'devise'"):
        load(tmp_path / "nothing", devise="cpu")
