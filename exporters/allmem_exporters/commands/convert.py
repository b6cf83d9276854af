"""`allmem convert`: make an AllMem checkpoint from a pretrained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from allmem_exporters.commands.conversion_flags import conversion_flags
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.messages import put_path, say
from allmem_runtime.cli.option_flags import FilePath, option_flags
from allmem_runtime.cli.shared_options import command, json_flag


@command()
@click.argument("source")
@click.argument("out", type=FilePath())
@conversion_flags
@option_flags(ExportOptions, "given", only=("windows", "state_budget"))
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Compare the checkpoint with what transformers' own code makes of SOURCE.",
)
@click.option("--force", is_flag=True, help="Write into a folder that holds other things.")
@json_flag("One JSON object instead of text.")
def convert(
    source: str,
    out: Path,
    conversion: dict[str, Any],
    given: ExportOptions,
    check: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make an AllMem checkpoint in OUT from SOURCE.

    SOURCE is a GGUF file, a folder with config.json and safetensors, or owner/model on the hub.
    The result reads like the original within its window; its memory still has to be trained, for
    which --windows must wait until the export.
    """
    say(f"converting {source}")
    with said_when_ended(f"{out} is as it was before"):
        from allmem_exporters.convert.checkpoint_folder import PROVENANCE_FILE
        from allmem_exporters.convert.conversion import convert as run

        folder = run(
            source,
            out,
            windows=given.windows,
            state_budget=given.state_budget,
            check=check,
            force=force,
            report=say,
            **conversion,
        )
    record = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "source": record}))
    else:
        put_path(folder)
        say(f"memory: {record['memory']}; weights: {record['dtype']}")
