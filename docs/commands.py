"""Writes docs/commands.md from the commands' own help: ``make docs``, or this file as a program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from allmem_runtime.cli import allmem

DOCUMENT = Path(__file__).with_name("commands.md")
WIDTH = 90

HEAD = """\
# Commands

Made by `make docs` from what each command says with `--help`; edit the help, not this page.

`allmem-run` is `allmem run`. Answers and tables go to standard output, everything else to standard
error; `--json` prints one event a line. Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted
(what was read is kept). `optimum-cli export allmem --model SOURCE OUT` does `allmem convert` and
`allmem export` in one.

| command | what it does | more |
|---|---|---|
"""

MORE = {
    "run": "[CUDA](cuda.md)",
    "info": "[state sizes](model.md#how-large-a-state-is)",
    "fork": "[session files](file-formats.md#the-session-file-allmem)",
    "bench": "[speed](speed.md#at-any-depth-allmem-bench)",
    "prepare": "[prepared weights](speed.md#prepared-weights-allmem-prepare-model)",
    "answer": "[training on own answers](finetuning.md#on-its-own-answers)",
    "eval": "[evaluation](evaluation.md)",
    "convert": "[the model](model.md)",
    "finetune": "[fine-tuning](finetuning.md)",
    "data": "[training data](../models/smollm2-135m/README.md#data)",
    "export": "[integer weights](speed.md#weights-in-8-and-4-bits-allmem-export---weights-int8int4), "
    "[float16](float16.md)",
}


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command of a group with the words that call it, groups before what is in them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def text() -> str:
    """The whole page."""
    rows, sections = [], []
    for words, command in commands(allmem, "allmem"):
        settings = {**command.context_settings, "terminal_width": WIDTH}
        context = click.Context(command, info_name=words, **settings)
        anchor, more = words.replace(" ", "-"), MORE.get(words.removeprefix("allmem "), "")
        rows.append(f"| [`{words}`](#{anchor}) | {command.get_short_help_str(200)} | {more} |\n")
        sections.append(f"\n## {words}\n\n```text\n{command.get_help(context)}\n```\n")
    return HEAD + "".join(rows) + "".join(sections)


if __name__ == "__main__":
    DOCUMENT.write_text(text(), encoding="utf-8")
