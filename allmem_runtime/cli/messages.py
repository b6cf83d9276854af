"""What commands tell people: each message one line, which nothing quoted in it can break out of.

All text of the commands goes through here, except answers (``prompt_answers.show``), JSON, and
what ``progress`` draws; the streams themselves let no control character pass in any case.
"""

from __future__ import annotations

import json
import shutil
import sys
from os import PathLike, fspath

import click

from allmem_runtime.cli.standard_streams import drawing
from allmem_runtime.printable import printable


def say(message: str) -> None:
    """Tell something on standard error."""
    click.echo(printable(message), err=True)


def put(*lines: str) -> None:
    """Write lines that people read to standard output."""
    for line in lines:
        click.echo(printable(line))


def put_json(values: object) -> None:
    """Write what programs read to standard output, in ASCII, so that nothing can spoil it."""
    click.echo(json.dumps(values, indent=2))


def put_path(path: PathLike[str]) -> None:
    """Write a path to standard output: to a program as it is."""
    name = fspath(path)
    click.echo(printable(name) if sys.stdout.isatty() else name)


def draw(line: str) -> None:
    """Draw a line of the terminal at standard error, over the one that was drawn before."""
    stream = drawing(sys.stderr)
    width = max(shutil.get_terminal_size().columns - 1, 10)
    stream.write(f"\r\x1b[K{printable(line)[:width]}\r")
    stream.flush()
