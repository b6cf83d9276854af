"""What `optimum-cli export allmem` does: convert if need be, look up the registry, export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimum.exporters.tasks import TasksManager

from allmem_exporters.errors import ExportError
from allmem_exporters.local_files import json_in
from allmem_exporters.make import make
from allmem_exporters.model.checkpoint import GENERIC_TYPE
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.optimum import registry as optimum  # noqa: F401  (registers the model type)
from allmem_exporters.optimum.arguments import options_of
from allmem_runtime.errors import AllMemError
from allmem_runtime.options import from_keywords
from allmem_runtime.printable import printable


def is_checkpoint(source: Path) -> bool:
    """Whether ``source`` is a folder with an AllMem model, not one to convert.

    Raises:
        ConversionError: its configuration is a link out of the folder, or no JSON.
    """
    config = json_in(source, "config.json") or {}
    return config.get("model_type") in (AllMemConfig.model_type, GENERIC_TYPE)


def main(arguments: argparse.Namespace) -> None:
    """Run the command; an error ends the program with its message."""
    try:
        run(
            arguments.model,
            arguments.output,
            options_of(arguments),
            report=_say,
        )
    except AllMemError as error:
        _say(f"optimum-cli export allmem: error: {error}")
        sys.exit(error.exit_code)


def _say(line: str) -> None:
    """A line on standard error, in which no name that it quotes controls a terminal."""
    print(printable(line), file=sys.stderr, flush=True)


def run(
    model: str,
    output: str | Path,
    options: ExportOptions | None = None,
    *,
    report: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> None:
    """Export ``model`` to the folder ``output``.

    Args:
        model: AllMem checkpoint, or anything that `allmem convert` takes.
        output: folder to write.
        options: of the export.
        report: is told what happens, a line at a time.
        given: fields of ``ExportOptions`` by name; they count more than ``options``.

    Raises:
        ExportError: the model type is in no registry entry, or the export failed.
        ConversionError: the source cannot be converted.
    """
    if "text-generation" not in TasksManager.get_supported_tasks_for_model_type(
        AllMemConfig.model_type, "onnx", library_name="transformers"
    ):
        raise ExportError("optimum's registry does not know the model type 'allmem'.")
    chosen = from_keywords(ExportOptions, given, ExportError, options)
    if is_checkpoint(Path(model)):
        export(model, output, chosen, report=report)
        return
    make(model, output, export_options=chosen, report=report)
