"""Flags of click made from declared options, and click's types of our quantities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from allmem_runtime.errors import UsageError
from allmem_runtime.options import Option, declared_options
from allmem_runtime.quantities import MAX_TOKENS, parse_token_list, parse_tokens

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class ParsedType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """A value that one of our parsers makes of a text.

    Args:
        parse: raises ``UsageError`` for what it does not understand.
        name: stands for the value in ``--help``.
    """

    def __init__(self, parse: Callable[[str], Any], name: str) -> None:
        self._parse = parse
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; what is none ends the command with the parser's message."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class FilePath(click.Path):
    """A path; an empty text, which would stand for the current folder, is none.

    Args:
        **checks: as of ``click.Path``.
    """

    def __init__(self, **checks: Any) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; an empty one ends the command."""
        if value == "":
            self.fail("A path is empty. Name a file or folder.", param, ctx)
        return super().convert(value, param, ctx)


def tokens(least: int = 1, most: int = MAX_TOKENS) -> ParsedType:
    """A number of tokens, such as 512, 8k or 1M."""
    return ParsedType(functools.partial(parse_tokens, least=least, most=most), "tokens")


def token_list(least: int = 1) -> ParsedType:
    """Numbers of tokens with commas between, such as 2k,8k,1M; ascending and each once."""
    return ParsedType(functools.partial(parse_token_list, least=least), "tokens,…")


def option_flags(
    kind: type,
    name: str = "options",
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Decorator:
    """Give a command the flags of an options class; it gets them as one object.

    Args:
        kind: a frozen dataclass whose fields are declared with ``option``.
        name: of the command's parameter.
        only: fields that become flags; None for all.
        without: fields that do not.
    """
    wanted = [
        option
        for option in declared_options(kind)
        if option.declared.on_command_line
        and option.name not in without
        and (only is None or option.name in only)
    ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            fields = {option.name: option.value(values.pop(option.name)) for option in wanted}
            return function(**values, **{name: kind(**fields)})

        flagged: Callable[..., Any] = command
        for option in reversed(wanted):
            flagged = _flag(option)(flagged)
        return flagged

    return decorate


class _Flag(click.Option):
    """A flag that also answers to earlier spellings, which ``--help`` does not show."""

    def __init__(self, *args: Any, former: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._former = list(former)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        shown = self.opts
        self.opts = [*shown, *self._former]
        super().add_to_parser(parser, ctx)
        self.opts = shown


class _Choice(click.Choice):  # type: ignore[type-arg]  # generic from click 8.2 on
    """Some values, and earlier spellings of them, which ``--help`` does not show."""

    def __init__(self, option: Option) -> None:
        super().__init__(option.declared.choices)
        self._option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(super().convert(self._option.value(value), param, ctx))


def _flag(option: Option) -> Decorator:
    declared, flag = option.declared, option.flag
    details: dict[str, Any] = {
        "cls": _Flag, "former": option.former_flags, "help": option.help,
        "default": option.default, "show_default": option.default not in (None, False),
    }  # fmt: skip
    if option.type is bool and option.default is False:
        return click.option(flag, option.name, is_flag=True, **details)
    if option.type is bool:
        return click.option(f"{flag}/--no-{flag.removeprefix('--')}", option.name, **details)
    kind: Any = option.type
    if declared.choices:
        kind = _Choice(option)
    elif declared.parse is not None:
        kind = ParsedType(declared.parse, declared.metavar or "value")
    return click.option(flag, option.name, type=kind, metavar=declared.metavar or None, **details)
