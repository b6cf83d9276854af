"""Export of models on the generic path to a folder that the runtime opens."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import prod
from pathlib import Path

from allmem_exporters.errors import ExportError
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.graph import TABLES
from allmem_exporters.generic.limits import refuse_on_generic_path, refuse_operators
from allmem_exporters.generic.names import weight_shapes
from allmem_exporters.generic.trace import trace_generic
from allmem_exporters.generic.validate import validate_generic
from allmem_exporters.generic.weights import Restrained, generic_digest
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.package_writer import check_destination, write_folder
from allmem_exporters.onnx.room import check_disk
from allmem_exporters.onnx.stored_file import StoredFile
from allmem_exporters.progress import Progress
from allmem_exporters.quantization.deferred import Storing
from allmem_exporters.quantization.float32 import Float32
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.store import store
from allmem_exporters.texts_trial import try_texts
from allmem_runtime.config import Manifest
from allmem_runtime.files.atomic import publish_folder
from allmem_runtime.machine import available_memory
from allmem_runtime.quantities import format_bytes

_LIBRARIES = 700 << 20
"""Memory of PyTorch, ONNX and what tracing needs."""


def export_generic(
    weights: ModelWeights,
    texts: Path,
    out: Path,
    options: ExportOptions,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Export a model; its check needs memory for all weights in float32, the rest does not.

    Args:
        weights: of the model, with the changes that ``options`` make to its configuration.
        texts: folder with tokenizer, chat template, generation settings and provenance.
        out: folder to write; it appears only when everything, the check included, went well.
        options: how.
        report: is told what happens, a line at a time.

    Returns:
        The manifest of the exported model.

    Raises:
        ExportError: the folder cannot be written, an option has no part here, or the check failed.
    """
    config = weights.config
    assert isinstance(config, GenericConfig)
    refuse_on_generic_path(config, windows=options.windows, activations=options.activations)
    check_destination(out, force=options.force)
    try_texts(texts, config, str(texts))
    stored_as = stored_format(options.storage, options.matmul_kernel)
    if options.check:
        _check_memory(config)
    decoder = generic_digest(weights)
    if options.memory != "enabled":
        weights = Restrained(weights, options.memory)
    with publish_folder(out) as folder:
        report(f"tracing all {config.num_hidden_layers} layers of transformers' own model")
        graph, matrices = trace_generic(weights)
        refuse_operators(graph)
        storing = Storing(Progress("writing", report))
        stored = store(graph, stored_as, matrices, storing)
        check_disk(graph, config, options, out)
        report(f"writing {out}")
        manifest = write_folder(
            graph, config, texts, folder, options.storage, options.activations, decoder=decoder
        )
        del graph
        gc.collect()
        if options.check:
            report("checking against PyTorch (relative RMS differences)")
            validate_generic(
                folder,
                weights,
                matrices,
                None if isinstance(stored_as, Float32) else StoredFile(folder, stored, TABLES),
                stored_as,
                tokens=options.check_tokens,
                report=report,
            )
    report(f"done: {out}, state {format_bytes(manifest.state.nbytes)} whatever is read")
    return manifest


def _check_memory(config: GenericConfig) -> None:
    """Refuse to begin a check that the memory that is free cannot hold."""
    weights = 4 * sum(prod(shape) for shape in weight_shapes(config).values())
    needed, free = _LIBRARIES + 2 * weights, available_memory()
    if free is not None and needed > free:
        raise ExportError(
            f"The check takes {format_bytes(needed)} of memory, since the whole model lies in it; "
            f"{format_bytes(free)} are available.",
            "Close other programs, or export with --no-check.",
        )
