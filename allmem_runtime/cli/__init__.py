"""The commands: ``allmem`` with its verbs, and ``allmem-run``, which is ``allmem run``."""

from __future__ import annotations

from typing import Any

import click

import allmem_runtime
from allmem_runtime.cli.exit_codes import run_to_exit
from allmem_runtime.cli.lazy_group import LazyCommand, LazyGroup
from allmem_runtime.cli.shared_options import HELP_NAMES

_RUNTIME, _EXPORTERS = "allmem_runtime.cli", "allmem_exporters.commands"

_COMMANDS = {
    "run": LazyCommand(f"{_RUNTIME}.run", "run", "Read texts of any length, then answer."),
    "info": LazyCommand(f"{_RUNTIME}.info", "info", "Say what a model or a saved session is."),
    "fork": LazyCommand(f"{_RUNTIME}.fork", "fork", "Copy a saved session, noting its parent."),
    "recall": LazyCommand(f"{_RUNTIME}.recall", "recall", "Tell what a session still holds."),
    "delete": LazyCommand(f"{_RUNTIME}.delete", "delete", "Delete saved sessions with their text."),
    "bench": LazyCommand(f"{_RUNTIME}.bench", "bench", "Measure speed and memory on this machine."),
    "prepare": LazyCommand(f"{_RUNTIME}.prepare", "prepare", "Lay weights out for faster starts."),
    "doctor": LazyCommand(f"{_RUNTIME}.doctor", "doctor", "Check that everything works here."),
    "answer": LazyCommand(f"{_RUNTIME}.answer", "answer", "Let a model answer a file of prompts."),
    "eval": LazyCommand(f"{_RUNTIME}.evaluate", "evaluate", "Measure what models remember."),
    "convert": LazyCommand(
        f"{_EXPORTERS}.convert", "convert", "Make an AllMem checkpoint of a decoder."
    ),
    "make": LazyCommand(f"{_EXPORTERS}.make", "make", "Convert and export in one go."),
    "finetune": LazyCommand(
        f"{_EXPORTERS}.finetune", "finetune", "Train the memories of a checkpoint."
    ),
    "data": LazyCommand(f"{_EXPORTERS}.data", "data", "Make training data as a recipe says."),
    "heads": LazyCommand(f"{_EXPORTERS}.heads", "heads", "Find the heads that carry far recall."),
    "export": LazyCommand(f"{_EXPORTERS}.export", "export", "Make a model folder of a checkpoint."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings=HELP_NAMES)
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
