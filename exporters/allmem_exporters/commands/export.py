"""The command `allmem export`."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_exporters.onnx.export_options import ExportOptions
from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.messages import say
from allmem_runtime.cli.option_flags import FilePath, option_flags
from allmem_runtime.cli.shared_options import command


@command()
@click.argument("checkpoint", type=FilePath())
@click.argument("out", type=FilePath())
@option_flags(ExportOptions)
def export(checkpoint: Path, out: Path, options: ExportOptions) -> None:
    """Export CHECKPOINT (made by `allmem convert`) to ONNX in the folder OUT."""
    with said_when_ended(f"{out} is as it was before"):
        # Imported here: PyTorch takes seconds to load, and `--help` should not.
        from transformers.utils import logging

        from allmem_exporters.onnx.export import export as run

        logging.disable_progress_bar()
        run(checkpoint, out, options, report=say)
