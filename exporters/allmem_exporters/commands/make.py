"""The command `allmem make`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from allmem_exporters.commands.conversion_flags import conversion_flags
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.messages import say
from allmem_runtime.cli.option_flags import FilePath, option_flags
from allmem_runtime.cli.shared_options import command


@command()
@click.argument("source")
@click.argument("out", type=FilePath())
@conversion_flags
@option_flags(
    ExportOptions,
    "export_options",
    without=("window", "sinks", "chunk", "kv_cache_dtype", "memory"),
)
def make(source: str, out: Path, conversion: dict[str, Any], export_options: ExportOptions) -> None:
    """Make a model folder in OUT from SOURCE: convert and export in one go.

    SOURCE is a GGUF file, a folder with config.json and safetensors, or owner/model on the hub.
    Weights are read one layer at a time, and no checkpoint is written in between.
    """
    with said_when_ended(f"{out} is as it was before"):
        # Imported here: PyTorch takes seconds to load, and `--help` should not.
        from transformers.utils import logging

        from allmem_exporters.make import make as run

        logging.disable_progress_bar()
        run(
            source,
            out,
            export_options=export_options,
            report=say,
            **conversion,
        )
