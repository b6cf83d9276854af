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
error; `--json` prints one event a line. Exit codes: 0 done, 1 error, 2 wrong usage, 130 after
Ctrl-C, 143 and 129 after SIGTERM and SIGHUP (what was read is kept). `optimum-cli export allmem
--model SOURCE OUT` does `allmem convert` and `allmem export` in one.

More about: [sessions](file-formats.md#the-session-file-allmem), [devices](cuda.md),
[state sizes](model.md#how-large-a-state-is), [speed, prepared and integer weights](speed.md),
[float16](float16.md), [evaluation](evaluation.md), [fine-tuning](finetuning.md), and
[training data](../models/smollm2-135m/README.md#data).

| command | what it does |
|---|---|
"""


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
        anchor, short = words.replace(" ", "-"), command.get_short_help_str(200)
        rows.append(f"| [`{words}`](#{anchor}) | {short} |\n")
        sections.append(f"\n## {words}\n\n```text\n{command.get_help(context)}\n```\n")
    return HEAD + "".join(rows) + "".join(sections)


if __name__ == "__main__":
    DOCUMENT.write_text(text(), encoding="utf-8")
