"""Options declared once: a field of a frozen dataclass says its help, choices and spellings.

Command lines are made from these fields (``allmem_runtime.cli.option_flags`` for click), and
Python's keyword arguments are read with them. This module knows no command line.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from allmem_runtime.errors import AllMemError

Options = TypeVar("Options")

_KEY = "declared"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a field of an options class says about itself.

    Attributes:
        help: one or two sentences for ``--help`` and for readers of the class.
        default_note: what ``--help`` says of the default where the field's own is None.
        choices: the values that are allowed; empty if others than these are.
        former_choices: earlier spellings of choices, which go on working.
        flag: the name of its flag without dashes; empty for the field's own name, with dashes.
        former: earlier spellings of the field and the flag, which go on working.
        parse: makes the value from a text; None for the type of the field.
        metavar: what stands for the value in ``--help``; empty for the type's name.
        on_command_line: whether there is a flag.
    """

    help: str
    default_note: str = ""
    choices: tuple[str, ...] = ()
    former_choices: Mapping[str, str] = field(default_factory=dict)
    flag: str = ""
    former: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    metavar: str = ""
    on_command_line: bool = True


@dataclass(frozen=True, slots=True)
class Option:
    """One field of an options class, ready for a command line.

    Attributes:
        name: of the field.
        type: of its value, None left out: ``str``, ``int``, ``float`` or ``bool``.
        default: of the field.
        declared: the rest.
    """

    name: str
    type: type
    default: Any
    declared: Declared

    @property
    def flag(self) -> str:
        """Its flag, with dashes."""
        return "--" + (self.declared.flag or self.name).replace("_", "-")

    @property
    def former_flags(self) -> list[str]:
        """Earlier spellings of the flag."""
        return ["--" + name.replace("_", "-") for name in self.declared.former]

    @property
    def keywords(self) -> set[str]:
        """All spellings that Python takes."""
        return {self.name, self.flag.lstrip("-").replace("-", "_"), *self.declared.former}

    @property
    def help(self) -> str:
        """The help with a note on the default where it needs one."""
        note = self.declared.default_note
        return f"{self.declared.help}  [default: {note}]" if note else self.declared.help

    def value(self, given: Any) -> Any:
        """What was given, an earlier spelling of a choice replaced by today's."""
        former = self.declared.former_choices
        return former.get(given, given) if isinstance(given, str) else given


def option(default: Any, help: str, **details: Any) -> Any:
    """A field of an options class.

    Args:
        default: its value if nothing is said.
        help: what it does.
        details: the other attributes of ``Declared``.
    """
    return field(default=default, metadata={_KEY: Declared(help, **details)})


def declared_options(kind: type) -> Iterator[Option]:
    """The fields of an options class that were declared with ``option``, in their order."""
    hints = typing.get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        if (declared := entry.metadata.get(_KEY)) is not None:
            yield Option(entry.name, _plain(hints[entry.name]), entry.default, declared)


def from_keywords(
    kind: type[Options],
    given: Mapping[str, Any],
    error: type[AllMemError],
    base: Options | None = None,
) -> Options:
    """Options from Python's keyword arguments, in whatever spelling.

    Args:
        kind: the options class.
        given: keywords and values.
        error: raised for what cannot be meant.
        base: options that hold where nothing was given; None for the defaults.

    Raises:
        AllMemError: of the kind ``error``: a keyword is unknown or given in two spellings, or a
            value is refused by the class.
    """
    options = list(declared_options(kind))
    names = {spelling: option for option in options for spelling in option.keywords}
    values: dict[str, Any] = {}
    for spelling, value in given.items():
        option = names.get(spelling)
        if option is None:
            raise error(
                f"Unknown option {spelling!r} (value {value!r});",
                f"known are {', '.join(option.name for option in options)}.",
            )
        if option.name in values:
            raise error(f"{option.name} is given twice, also as {spelling!r}.", "Leave one out.")
        values[option.name] = option.value(value)
    return kind(**values) if base is None else dataclasses.replace(base, **values)  # type: ignore[type-var]


def check_choices(options: object, error: type[AllMemError]) -> None:
    """Refuse values that are none of an option's choices.

    Raises:
        AllMemError: of the kind ``error``; names the option, the value and what is allowed.
    """
    for option in declared_options(type(options)):
        value, choices = getattr(options, option.name), option.declared.choices
        if choices and value is not None and value not in choices:
            raise error(f"{option.name} is {value!r}; allowed: {', '.join(choices)}.")


def _plain(hint: Any) -> type:
    """The type of a value that may also be None."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    assert isinstance(hint, type)
    return hint
