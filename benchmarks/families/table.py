"""Writes the table of docs/models.md: every family that is known to convert, and what it costs.

    make families [FAMILIES="gemma2 olmo3"]

Each family is a tiny random decoder of transformers with two layers, converted and exported.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ExportError
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.modeling import pieces
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.graph_runner import GraphRunner
from allmem_runtime.config import Manifest
from allmem_runtime.quantities import format_bytes
from allmem_runtime.spec import GRAPH_FILE
from benchmarks.families.tiny import GENERIC, PACKED, SIZES, write_tiny_decoder

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- made by `make families` -->\n", "<!-- end -->\n"
_HEAD = (
    "| family | path | self-check | int4 perplexity | state | nodes |\n|---|---|---|---|---|---|\n"
)
_MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)
_TEXTS = 4


def row(kind: str) -> str:
    """The row of a family."""
    path = "packed" if kind in PACKED else "generic"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        lines: list[str] = []
        decoder = write_tiny_decoder(folder / "source", kind)
        convert(folder / "source", folder / "converted", _MEMORY, report=lines.append)
        error = lines[-1].split(" by ")[1].split()[0]
        return f"| `{kind}` | {path} | {error} | {_of_export(folder, decoder)} |\n"


def _of_export(folder: Path, decoder: PreTrainedModel) -> str:
    """What there is to say of a converted model in int4; why, if it cannot be exported."""
    model = folder / "model"
    try:
        manifest = export(folder / "converted", model, weights="int4", check=False)
    except ExportError as error:
        return f"not exported: {str(error).split('. ')[0]} | |"
    graph = onnx.load(model / GRAPH_FILE, load_external_data=False).graph
    ratio = perplexity_ratio(model, manifest, decoder)
    return f"{ratio:.2f} | {format_bytes(manifest.state.nbytes)} | {len(graph.node)}"


@torch.no_grad()
def perplexity_ratio(model: Path, manifest: Manifest, decoder: PreTrainedModel) -> float:
    """Perplexity of a model over that of the decoder it came from, on texts as the latter writes.

    Args:
        model: an export, whose window covers the texts.
        manifest: of it.
        decoder: of transformers.
    """
    runner, losses = GraphRunner(model, manifest.state, native=True), []
    for seed in range(_TEXTS):
        tokens = np.random.default_rng(seed).integers(3, SIZES["vocab_size"], manifest.window)
        cuts = pieces(0, len(tokens), manifest.chunk)
        found, _ = runner.read(tokens.tolist(), cuts, range(len(tokens)))
        wanted = decoder(torch.from_numpy(tokens)[None]).logits[0]
        losses.append(divergence(wanted, torch.from_numpy(found)))
    return math.exp(float(torch.cat(losses).mean()))


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each next-token distribution, [time], of logits."""
    exact, other = wanted.double().log_softmax(-1), found.double().log_softmax(-1)
    return (exact.exp() * (exact - other)).sum(-1)


def put_row(kind: str, text: str) -> None:
    """Put a family's row into docs/models.md, in the place of an earlier one."""
    whole = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    table, _, after = rest.partition(END)
    known = {line.split("`")[1]: line for line in table.splitlines(keepends=True) if "`" in line}
    known[kind] = text
    rows = "".join(known[name] for name in sorted(known))
    DOCUMENT.write_text(before + BEGIN + _HEAD + rows + END + after, encoding="utf-8")


@click.command()
@click.argument("families", nargs=-1)
def main(families: tuple[str, ...]) -> None:
    """Write the rows of FAMILIES, by default of all, into docs/models.md."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    for kind in families or sorted({*PACKED, *GENERIC}):
        made = row(kind)
        click.echo(made, nl=False)
        put_row(kind, made)


if __name__ == "__main__":
    main()
