"""`allmem make`: from a pretrained model to a folder that the runtime opens, in one go.

It is a conversion and an export without the checkpoint in between: each weight is read from the
source when the exported file needs it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from allmem_exporters.convert.calibrated_weights import calibrated, refuse_trained
from allmem_exporters.convert.checkpoint_folder import write_generation_settings, write_record
from allmem_exporters.convert.converted_weights import ConvertedWeights
from allmem_exporters.convert.opening import open_conversion
from allmem_exporters.convert.self_check import check_conversion
from allmem_exporters.errors import ConversionError
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.limits import refuse_on_generic_path
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.onnx.export import export_weights
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.package_writer import check_destination
from allmem_exporters.onnx.room import check_room
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.texts_trial import try_texts
from allmem_runtime.config import Manifest
from allmem_runtime.engine.malloc import give_heap_back, map_large_blocks


def make(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: MemoryOptions | None = None,
    export_options: ExportOptions | None = None,
    *,
    seed: int = 0,
    dtype: str | None = None,
    revision: str | None = None,
    memory: str | os.PathLike[str] | None = None,
    calibration_text: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Convert a pretrained decoder and export it.

    Args:
        source: a GGUF file, a folder in transformers' layout, or ``owner/model`` on the hub.
        out: folder to write; it appears only when everything, the check included, went well.
        options: of window and memory.
        export_options: of the export; fields that ``options`` have, too, count more here.
        seed: of the memory's initial values.
        dtype: that weights are rounded to before they are stored: ``float32``, ``float16`` or
            ``bfloat16``; None for the source's own.
        revision: branch, tag or commit on the hub.
        memory: an adapter made by ``finetune``, instead of fresh memories.
        calibration_text: a text to which fresh memories are fitted, see ``convert``.
        report: is told what happens, a line at a time.

    Returns:
        The manifest of the exported model.

    Raises:
        ConversionError: the source is missing, damaged or unsupported.
        ConfigError: an option is unknown or out of range.
        ExportError: the folder cannot be written, the options contradict each other, or the check
            failed.
    """
    options, export_options = options or MemoryOptions(), export_options or ExportOptions()
    stored_format(export_options.storage, export_options.matmul_kernel)  # refused first
    refuse_trained(memory, calibration_text)
    map_large_blocks()
    out = Path(out)
    check_destination(out, force=export_options.force)
    report(f"opening {source}")
    changes: dict[str, int | str | None] = {
        "window": export_options.window,
        "sinks": export_options.sinks,
        "chunk": export_options.chunk,
        "cache_dtype": export_options.kv_cache_dtype,
    }
    opened, weights, adapter = open_conversion(
        source,
        options,
        seed=seed,
        dtype=dtype,
        revision=revision,
        memory=memory,
        changes={key: value for key, value in changes.items() if value is not None},
    )
    if isinstance(weights.config, GenericConfig):
        refuse_on_generic_path(
            weights.config,
            windows=export_options.windows,
            calibration=calibration_text,
            activations=export_options.activations,
        )
    else:
        check_room(weights.config, export_options, out)
    with TemporaryDirectory(prefix="allmem-") as made:
        texts = Path(made)
        opened.write_texts(texts)
        write_generation_settings(weights.config, texts)
        try_texts(texts, weights.config, str(source), ConversionError)
        fitted = calibration_text is not None
        write_record(opened, weights, adapter, texts, seed, calibrated=fitted)
        if export_options.check:
            check_conversion(opened, weights, weights.dtype, texts, report)
        converted: ModelWeights = weights
        if isinstance(weights, ConvertedWeights) and calibration_text is not None:
            report("calibrating")
            converted = calibrated(weights, texts, calibration_text)
        gc.collect()
        give_heap_back()  # reading a vocabulary takes and frees a gibibyte in small parts
        return export_weights(converted, texts, out, export_options, report=report)
