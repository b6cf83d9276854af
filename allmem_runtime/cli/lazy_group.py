"""A group of commands whose modules are imported when one of them is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class LazyCommand(NamedTuple):
    """Where a command is, and the line that help shows of it without importing it."""

    module: str
    attribute: str
    help: str


class LazyGroup(click.Group):
    """Each command starts fast, and none needs what another needs.

    Args:
        lazy: commands by name, listed before those that are added in the usual way.
        kwargs: of ``click.Group``.
    """

    def __init__(self, *, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._lazy = lazy

    def list_commands(self, context: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return [*self._lazy, *super().list_commands(context)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import one command, or None if there is none of this name."""
        place = self._lazy.get(name)
        if place is None:
            return super().get_command(context, name)
        command = getattr(importlib.import_module(place.module), place.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing the lazy ones."""
        lines = [(name, place.help) for name, place in self._lazy.items()]
        for name in super().list_commands(context):
            command = super().get_command(context, name)
            if command is not None and not command.hidden:
                lines.append((name, command.get_short_help_str(formatter.width)))
        with formatter.section("Commands"):
            formatter.write_dl(lines)
