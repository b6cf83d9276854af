"""Writes the table of docs/models.md: every family that is known to convert, and what it costs.

    make families

Each family is a tiny random decoder of transformers with two layers, converted and exported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import onnx
from transformers.utils import logging

from allmem_exporters.convert.conversion import convert
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export import export
from allmem_runtime.quantities import format_bytes
from allmem_runtime.spec import GRAPH_FILE
from benchmarks.families.tiny import GENERIC, PACKED, write_tiny_decoder

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- made by `make families` -->\n", "<!-- end -->\n"
_HEAD = "| family | path | self-check | state | nodes |\n|---|---|---|---|---|\n"
_MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)


def rows() -> Iterator[str]:
    """A row for each family."""
    paths = dict.fromkeys(PACKED, "packed") | dict.fromkeys(GENERIC, "generic")
    for kind, path in sorted(paths.items()):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            lines: list[str] = []
            write_tiny_decoder(folder / "source", kind)
            convert(folder / "source", folder / "converted", _MEMORY, report=lines.append)
            error = lines[-1].split(" by ")[1].split()[0]
            manifest = export(folder / "converted", folder / "model", check=False)
            graph = onnx.load(folder / "model" / GRAPH_FILE, load_external_data=False).graph
            state = format_bytes(manifest.state.nbytes)
            yield f"| `{kind}` | {path} | {error} | {state} | {len(graph.node)} |\n"


@click.command()
def main() -> None:
    """Write the table into docs/models.md."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    table = _HEAD
    for row in rows():
        click.echo(row, nl=False)
        table += row
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
