"""`allmem export`: from an AllMem checkpoint to a folder that the runtime opens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from allmem_exporters.ablation.memory_ablation import restrain
from allmem_exporters.errors import ExportError
from allmem_exporters.model.adapter import base_digest
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.package_writer import check_destination, write_folder
from allmem_exporters.onnx.trace import trace
from allmem_exporters.onnx.validate import validate
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.store import store
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
    weights, activations = options.storage, options.activations
    stored_as = stored_format(weights, options.matmul_kernel)
    checkpoint, out = Path(checkpoint), Path(out)
    if not (checkpoint / "config.json").is_file():
        raise ExportError(
            f"{checkpoint} is no checkpoint: it has no config.json.",
            "Make one with `allmem convert SOURCE CHECKPOINT`.",
        )
    map_large_blocks()
    report(f"loading {checkpoint}")
    changes = _changes(checkpoint, options)
    # Unchecked, large models take half the memory: nothing needs them in float32.
    dtype = torch.float32 if options.check or activations == "float32" else "auto"
    model = open_checkpoint(checkpoint, dtype, **changes)
    decoder = base_digest(model)
    restrain(model, options.memory)
    check_destination(out, force=options.force)
    with publish_folder(out) as folder:
        report("tracing")
        graph = trace(model, activations)
        # With float16 activations the graph was traced with float16 matrices.
        stored = store(graph, stored_as) if activations == "float32" else {}
        report(f"writing {out}")
        manifest = write_folder(
            graph, model.config, checkpoint, folder, weights, activations, decoder=decoder
        )
        del graph
        if options.check:
            report("checking against PyTorch (relative RMS differences)")
            validate(
                folder,
                model,
                storage=weights,
                matmul_kernel=options.matmul_kernel,
                stored=stored,
                activations=activations,
                tokens=options.check_tokens,
                report=report,
            )
    report(f"done: {out}, state {format_bytes(manifest.state.nbytes)} whatever is read")
    return manifest


def _changes(checkpoint: Path, options: ExportOptions) -> dict[str, int | str]:
    """Fields of the configuration that an export may change."""
    given: dict[str, int | str | None] = {
        "window": options.window,
        "sinks": options.sinks,
        "chunk": options.chunk,
        "cache_dtype": options.kv_cache_dtype,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if options.window is not None and options.chunk is None:
        kept = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("chunk")
        changes["chunk"] = min(kept or AllMemConfig.chunk, options.window)
    return changes
