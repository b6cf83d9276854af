"""`allmem export`: from an AllMem checkpoint to a folder that the runtime opens."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from allmem_exporters.ablation.memory_ablation import restrain_layer
from allmem_exporters.errors import ExportError
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.export import export_generic
from allmem_exporters.generic.weights import open_weights
from allmem_exporters.heads.windows import give_windows
from allmem_exporters.local_files import json_in
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.weights import ChangedWeights, ModelWeights, decoder_digest
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.ir_utils import set_values
from allmem_exporters.onnx.package_writer import check_destination, write_folder
from allmem_exporters.onnx.room import check_disk, check_room
from allmem_exporters.onnx.trace import trace
from allmem_exporters.onnx.validate import validate
from allmem_exporters.onnx.weight_stream import MatrixStream, TracedMatrices
from allmem_exporters.progress import Progress
from allmem_exporters.quantization.deferred import Storing
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.store import store
from allmem_exporters.quantization.stored_format import Carried, StoredMatrix
from allmem_exporters.texts_trial import try_texts
from allmem_runtime.config import Manifest
from allmem_runtime.engine.malloc import give_heap_back, heap_reused, map_large_blocks
from allmem_runtime.files.atomic import publish_folder
from allmem_runtime.options import from_keywords
from allmem_runtime.quantities import format_bytes
from allmem_runtime.strict_json import is_whole


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
    stored_format(options.storage, options.matmul_kernel)  # refused before anything is read
    checkpoint, out = Path(checkpoint), Path(out)
    if not (checkpoint / "config.json").is_file():
        raise ExportError(
            f"{checkpoint} is no checkpoint: it has no config.json.",
            "Make one with `allmem convert SOURCE CHECKPOINT`.",
        )
    report(f"opening {checkpoint}")
    weights = open_weights(checkpoint, **_changes(checkpoint, options))
    return export_weights(weights, checkpoint, out, options, report=report)


def export_weights(
    weights: ModelWeights,
    texts: Path,
    out: Path,
    options: ExportOptions,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Export a model whose weights are read one layer at a time.

    Args:
        weights: of the model, with the changes that ``options`` make to its configuration.
        texts: folder with tokenizer, chat template, generation settings and provenance.
        out: folder to write; it appears only when everything, the check included, went well.
        options: how.
        report: is told what happens, a line at a time.

    Returns:
        The manifest of the exported model.

    Raises:
        ExportError: the folder cannot be written, or the check failed.
    """
    map_large_blocks()
    if isinstance(weights.config, GenericConfig):
        return export_generic(weights, texts, out, options, report=report)
    check_destination(out, force=options.force)
    config = weights.config
    try_texts(texts, config, str(texts))
    decoder = decoder_digest(weights)
    if options.windows is not None:
        give_windows(options.windows, config, decoder, options.state_budget, report)
    check_room(config, options, out)
    if options.memory != "enabled":
        weights = ChangedWeights(weights, partial(restrain_layer, memory=options.memory))
    with publish_folder(out) as folder:
        report("tracing")
        graph = trace(weights, options.activations)
        progress = Progress("writing", report)
        storing = Storing(progress)
        stored = put_matrices(graph, weights, options, storing)
        check_disk(graph, config, options, out)
        report(f"writing {out}")
        manifest = write_folder(
            graph,
            weights.config,
            texts,
            folder,
            options.storage,
            options.activations,
            decoder=decoder,
            progress=None if stored else progress,
        )
        del graph
        gc.collect()
        give_heap_back()
        if storing.carried != Carried():
            report(_carried_over(storing))
        if options.check:
            report("checking against PyTorch (relative RMS differences)")
            with heap_reused():
                validate(
                    folder,
                    weights,
                    storage=options.storage,
                    matmul_kernel=options.matmul_kernel,
                    stored=stored,
                    activations=options.activations,
                    tokens=options.check_tokens,
                    report=report,
                )
    report(f"done: {out}, state {format_bytes(manifest.state.nbytes)} whatever is read")
    return manifest


def _carried_over(storing: Storing) -> str:
    carried, rounded = storing.carried, ""
    if carried.rounded:
        rounded = f", {carried.rounded:,} with scales rounded to float16"
    return (
        f"{carried.exact:,} of {storing.weights:,} weights are carried over exactly as the source "
        f"stores them{rounded}; the others are rounded anew"
    )


def put_matrices(
    graph: ir.Model,
    weights: ModelWeights,
    options: ExportOptions,
    storing: Storing | None = None,
) -> dict[str, StoredMatrix]:
    """Put the large matrices into a graph; what is stored, unless they are as they were traced."""
    if options.activations == "float32":
        stored_as = stored_format(options.storage, options.matmul_kernel)
        return store(graph, stored_as, MatrixStream(weights), storing)
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
        kept = (json_in(checkpoint, "config.json") or {}).get("chunk")
        known = kept if is_whole(kept, 1, options.window) else AllMemConfig.chunk
        changes["chunk"] = min(known, options.window)
    return changes
