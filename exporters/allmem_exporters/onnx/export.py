"""`allmem export`: from an AllMem checkpoint to a folder that the runtime opens."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from allmem_exporters.ablation.memory_ablation import restrain_layer
from allmem_exporters.errors import ExportError
from allmem_exporters.heads.windows import windows_by_head
from allmem_exporters.model.checkpoint import CheckpointWeights
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.weights import ChangedWeights, ModelWeights, decoder_digest
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.ir_utils import set_values
from allmem_exporters.onnx.package_writer import check_destination, write_folder
from allmem_exporters.onnx.trace import trace
from allmem_exporters.onnx.validate import validate
from allmem_exporters.onnx.weight_stream import MatrixStream, TracedMatrices
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.store import store
from allmem_exporters.quantization.stored_format import StoredMatrix
from allmem_runtime.config import Manifest
from allmem_runtime.engine.malloc import map_large_blocks
from allmem_runtime.files.atomic import publish_folder
from allmem_runtime.options import from_keywords
from allmem_runtime.quantities import format_bytes


def export(
    checkpoint: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    report: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> Manifest:
    """Export a checkpoint to ONNX and compare the result with it.

    Args:
        checkpoint: folder made by ``convert`` or ``save_pretrained``.
        out: folder to write; it appears only when everything, the check included, went well.
        options: how.
        report: is told what happens, a line at a time.
        given: fields of ``ExportOptions`` by name, such as ``weights="int8"``; they count more
            than ``options``.

    Returns:
        The manifest of the exported model.

    Raises:
        ConversionError: the checkpoint is damaged, of another kind, or lacks a weight.
        ExportError: there is no checkpoint, the folder cannot be written, the options contradict
            each other, or the check failed.
    """
    options = from_keywords(ExportOptions, given, ExportError, options)
    activations = options.activations
    stored_format(options.storage, options.matmul_kernel)  # refused before anything is read
    checkpoint, out = Path(checkpoint), Path(out)
    if not (checkpoint / "config.json").is_file():
        raise ExportError(
            f"{checkpoint} is no checkpoint: it has no config.json.",
            "Make one with `allmem convert SOURCE CHECKPOINT`.",
        )
    map_large_blocks()
    report(f"opening {checkpoint}")
    weights = _opened(checkpoint, options, report)
    check_destination(out, force=options.force)
    with publish_folder(out) as folder:
        report("tracing")
        graph = trace(weights, activations)
        stored = put_matrices(graph, weights, options)
        report(f"writing {out}")
        manifest = write_folder(
            graph,
            weights.config,
            checkpoint,
            folder,
            options.storage,
            activations,
            decoder=decoder_digest(weights),
        )
        del graph
        if options.check:
            report("checking against PyTorch (relative RMS differences)")
            validate(
                folder,
                weights,
                storage=options.storage,
                matmul_kernel=options.matmul_kernel,
                stored=stored,
                activations=activations,
                tokens=options.check_tokens,
                report=report,
            )
    report(f"done: {out}, state {format_bytes(manifest.state.nbytes)} whatever is read")
    return manifest


def _opened(
    checkpoint: Path, options: ExportOptions, report: Callable[[str], None]
) -> ModelWeights:
    """The weights of a checkpoint with the changes that an export may make."""
    changes = _changes(checkpoint, options)
    weights: ModelWeights = CheckpointWeights(checkpoint, **changes)
    if options.windows is not None:
        digest = partial(decoder_digest, weights)
        changes["windows"] = windows_by_head(
            Path(options.windows), weights.config, digest, options.state_budget, report
        )
        weights = CheckpointWeights(checkpoint, **changes)
    if options.memory == "enabled":
        return weights
    return ChangedWeights(weights, partial(restrain_layer, memory=options.memory))


def put_matrices(
    graph: ir.Model, weights: ModelWeights, options: ExportOptions
) -> dict[str, StoredMatrix]:
    """Put the large matrices into a graph; what is stored, unless they are as they were traced."""
    if options.activations == "float32":
        stored_as = stored_format(options.storage, options.matmul_kernel)
        return store(graph, stored_as, MatrixStream(weights))
    traced = TracedMatrices(weights, options.activations)
    for name, value in graph.graph.initializers.items():
        if name in MatrixStream(weights):
            assert value.shape is not None
            set_values(value, traced.part(name, tuple(value.shape.numpy())))
    return {}


def _changes(checkpoint: Path, options: ExportOptions) -> dict[str, Any]:
    """Fields of the configuration that an export may change."""
    given: dict[str, Any] = {
        "window": options.window,
        "sinks": options.sinks,
        "chunk": options.chunk,
        "cache_dtype": options.kv_cache_dtype,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if options.window is not None:
        changes["windows"] = None  # one for all
    if options.window is not None and options.chunk is None:
        kept = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("chunk")
        changes["chunk"] = min(kept or AllMemConfig.chunk, options.window)
    return changes
