"""The arguments of `optimum-cli export allmem`, made from the declared options of an export.

Nothing heavy is imported: optimum reads this at each of its starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from allmem_exporters.model.families import titles
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_runtime.errors import UsageError
from allmem_runtime.options import Option, declared_options
from allmem_runtime.printable import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "--model",
        required=True,
        help=f"AllMem checkpoint, or a {titles()} model: folder, hub id or GGUF.",
    )
    for option in declared_options(ExportOptions):
        _add(parser, option)
    parser.add_argument("output", help="Folder to write.")


def options_of(arguments: argparse.Namespace) -> ExportOptions:
    """The options that were given.

    Raises:
        ExportError: two of them contradict each other.
    """
    names = [option.name for option in declared_options(ExportOptions)]
    return ExportOptions(**{name: getattr(arguments, name) for name in names})


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    details: dict[str, Any] = {"dest": option.name}
    if option.type is bool:
        details["action"] = "store_true" if not option.default else argparse.BooleanOptionalAction
    else:
        details["type"] = _reader(option)
        if option.declared.choices:
            details["choices"] = option.declared.choices
        elif option.declared.metavar:
            details["metavar"] = option.declared.metavar
    parser.add_argument(option.flag, default=option.default, help=option.help, **details)
    for flag in option.former_flags:
        # Without a default of its own, or it would undo what the flag of today says.
        parser.add_argument(flag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **details)


def _reader(option: Option) -> Callable[[str], Any]:
    """Makes the value from a text; argparse tells the user what the parser says of it."""
    parse = option.declared.parse or option.type

    def read(text: str) -> Any:
        try:
            return option.value(parse(text))
        except UsageError as error:
            raise argparse.ArgumentTypeError(printable(str(error))) from None

    return read
