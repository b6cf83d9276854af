"""The commands: ``allmem`` with its verbs, and ``allmem-run``, which is ``allmem run``."""

from __future__ import annotations

import importlib
from typing import Any

import click

import allmem_runtime
from allmem_runtime.cli.edge import run_to_exit
from allmem_runtime.cli.shared_options import HELP_NAMES

# Verb -> (module, command, one line of help). A verb's module is imported when it is used, so
# that each starts fast and none needs what another needs.
_COMMANDS = {
    "run": ("allmem_runtime.cli.run", "run", "Read texts of any length, then answer."),
    "info": ("allmem_runtime.cli.info", "info", "Say what a model or a saved session is."),
    "fork": ("allmem_runtime.cli.fork", "fork", "Copy a saved session, noting its parent."),
    "bench": ("allmem_runtime.cli.bench", "bench", "Measure speed and memory on this machine."),
    "prepare": ("allmem_runtime.cli.prepare", "prepare", "Lay weights out for faster starts."),
    "doctor": ("allmem_runtime.cli.doctor", "doctor", "Check that everything works here."),
    "answer": ("allmem_runtime.cli.answer", "answer", "Let a model answer a file of prompts."),
    "eval": ("allmem_runtime.cli.evaluate", "evaluate", "Measure what models remember."),
    "convert": ("allmem_exporters.cli", "convert", "Make an AllMem checkpoint of a decoder."),
    "finetune": ("allmem_exporters.cli", "finetune", "Train the memories of a checkpoint."),
    "data": ("allmem_exporters.cli", "data", "Make training data as a recipe says."),
    "export": ("allmem_exporters.cli", "export", "Make a model folder of a checkpoint."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All verbs, in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import one verb, or None if there is none of this name."""
        if name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings=HELP_NAMES)
@click.version_option(allmem_runtime.__version__, prog_name="allmem")
def allmem() -> None:
    """Read documents without end in constant memory, and ask about them."""


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of ``allmem``."""
    run_to_exit(allmem, "allmem", arguments)


def run_main(arguments: list[str] | None = None) -> Any:
    """Entry point of ``allmem-run``."""
    from allmem_runtime.cli.run import run

    run_to_exit(run, "allmem-run", arguments)
