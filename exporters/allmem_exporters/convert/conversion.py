"""Conversion: copies a pretrained decoder's weights unchanged and adds a memory to each layer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from allmem_exporters.convert.calibrated_weights import calibrated, refuse_trained
from allmem_exporters.convert.checkpoint_folder import (
    check_destination,
    check_disk,
    publish,
    write_checkpoint,
    write_generation_settings,
    write_record,
)
from allmem_exporters.convert.opening import open_conversion
from allmem_exporters.convert.self_check import check_conversion
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.generic.limits import refuse_on_generic_path
from allmem_exporters.generic.weights import GenericConverted, open_weights
from allmem_exporters.heads.windows import give_windows
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.weights import decoder_digest
from allmem_exporters.texts_trial import try_texts
from allmem_runtime.files.atomic import storage_errors
from allmem_runtime.files.temporary import temporary_folder
from allmem_runtime.options import from_keywords

logger = logging.getLogger(__name__)


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: MemoryOptions | None = None,
    *,
    seed: int = 0,
    dtype: str | None = None,
    revision: str | None = None,
    calibration_text: str | None = None,
    memory: str | os.PathLike[str] | None = None,
    windows: Path | None = None,
    state_budget: int | None = None,
    check: bool = True,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> Path:
    """Convert a pretrained decoder into an AllMem checkpoint folder.

    Args:
        source: a GGUF file, a folder in transformers' layout, or ``owner/model`` on the hub.
        out: the folder to write; must be new, empty or an earlier conversion.
        options: of window and memory.
        seed: of the memory's initial values.
        dtype: ``float32``, ``float16`` or ``bfloat16``; None keeps the source's own, in which
            every weight is copied bit for bit (a GGUF file's are dequantized to float32).
        revision: branch, tag or commit on the hub.
        calibration_text: a text of the kind the model will read, on which the memory's keys are
            whitened and its values scaled to a root mean square of 1.
        memory: an adapter made by ``finetune``: its memories instead of fresh ones, in float32
            whatever the decoder's type. It brings the options that it was trained with.
        windows: a head table, by which each key/value head gets a window of its own.
        state_budget: bytes of the state within which it gives; None for those of one window.
        check: compare the checkpoint with what transformers' own code makes of the source.
        force: write into a folder that holds other things; what we do not write stays.
        report: is told who was given which window, and what was compared, a line at a time.
        given: fields of ``MemoryOptions`` by name, such as ``window=2048``; they count more than
            ``options``.

    Returns:
        The folder.

    Raises:
        ConversionError: the source is missing, damaged or unsupported, ``out`` is in use, or the
            comparison failed.
        ConfigError: an option is unknown or out of range.
        ExportError: the head table is another model's, or the budget too small.
    """
    options = from_keywords(MemoryOptions, given, ConfigError, options)
    refuse_trained(memory, calibration_text)
    folder = Path(out)
    check_destination(folder, force)
    opened, weights, adapter = open_conversion(
        source, options, seed=seed, dtype=dtype, revision=revision, memory=memory
    )
    config = weights.config
    if isinstance(weights, GenericConverted):
        refuse_on_generic_path(config, windows=windows, calibration=calibration_text)
    elif windows is not None:
        give_windows(windows, config, decoder_digest(weights), state_budget, report)

    check_disk(weights, folder)
    with storage_errors(folder), ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = stack.enter_context(temporary_folder(folder))
        opened.write_texts(stage)
        write_generation_settings(config, stage)
        try_texts(stage, config, str(source), ConversionError)
        logger.info("writing %s", folder)
        if calibration_text is None or isinstance(weights, GenericConverted):
            write_checkpoint(weights, stage)
        else:
            write_checkpoint(calibrated(weights, stage, calibration_text), stage)
        write_record(opened, weights, adapter, stage, seed, calibrated=calibration_text is not None)
        if check:
            check_conversion(opened, open_weights(stage), weights.dtype, stage, report)
        publish(stage, folder)
    return folder
