"""How the benchmarks read their command lines: one kind of parser, and the types they share.

It needs the standard library alone, as do the kernels' benchmarks beyond NumPy and PyTorch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from allmem_runtime.errors import AllMemError, UsageError
from allmem_runtime.quantities import parse_token_list, parse_tokens

Value = TypeVar("Value")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The module's docstring as it stands, and the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, ""):
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {','.join(map(str, action.default))})"
        return super()._get_help_string(action)


def parser_of(name: str, docstring: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m benchmarks.NAME``, which its docstring explains."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=docstring, formatter_class=_Help
    )


def run(measure: Callable[[argparse.Namespace], object], options: argparse.Namespace) -> None:
    """Measure, or end with one line that says why not."""
    try:
        measure(options)
    except AllMemError as error:
        sys.exit(str(error))


def add_model(parser: argparse.ArgumentParser) -> None:
    """``MODEL``: a model folder, or the graph in one."""
    parser.add_argument("model", type=existing, help="a model folder")


def add_text(parser: argparse.ArgumentParser) -> None:
    """``TEXT``: a file to read."""
    parser.add_argument("text", type=existing_file, help="a text file")


def existing(text: str) -> Path:
    """A file or folder that is there."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


def existing_file(text: str) -> Path:
    """A file that is there."""
    path = existing(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, not a file")
    return path


def existing_folder(text: str) -> Path:
    """A folder that is there."""
    path = existing(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def names(text: str) -> list[str]:
    """Words with commas between; none of an empty text."""
    return [part.strip() for part in text.split(",") if part.strip()]


def integers(text: str) -> list[int]:
    """Integers from 1 on with commas between, in their order."""
    return [at_least_one(part) for part in names(text)]


def at_least_one(text: str) -> int:
    """An integer from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1 on")
    return int(text)


def tokens(text: str) -> int:
    """A number of tokens, such as 512, 8k or 1M."""
    return _told(parse_tokens, text)


def tokens_or_none(text: str) -> int:
    """The same, or 0."""
    return _told(partial(parse_tokens, least=0), text)


def depths(text: str) -> list[int]:
    """Numbers of tokens with commas between, 0 among them or not; ascending and each once."""
    return _told(partial(parse_token_list, least=0), text)


def _told(parse: Callable[[str], Value], text: str) -> Value:
    """What a parser makes of a text; argparse tells what it says of a wrong one."""
    try:
        return parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
