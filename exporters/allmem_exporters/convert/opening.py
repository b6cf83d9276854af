"""Opening a source for conversion: which configuration and which weights it becomes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from allmem_exporters.convert.converted_weights import ConvertedWeights
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.weights import GenericConverted
from allmem_exporters.model.adapter import Adapter
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.sources import Source, open_source

logger = logging.getLogger(__name__)

Converted = ConvertedWeights | GenericConverted

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def open_conversion(
    source: str | os.PathLike[str],
    options: MemoryOptions,
    *,
    seed: int,
    dtype: str | None,
    revision: str | None,
    memory: str | os.PathLike[str] | None,
    changes: Mapping[str, int | str] | None = None,
) -> tuple[Source, Converted, Adapter | None]:
    """Find a source and say what becomes of it; nothing of any size is read.

    Args:
        source: as ``convert`` takes it, like what follows.
        options: of window and memory.
        seed: of the memory's initial values.
        dtype: of the weights.
        revision: on the hub.
        memory: path of an adapter.
        changes: fields of the configuration that count more than all others.

    Raises:
        ConversionError: the source is missing, damaged or unsupported.
        ConfigError: an option is unknown or out of range.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}.")
    adapter = Adapter(Path(memory)) if memory is not None else None
    opened = open_source(os.fspath(source), revision)
    chosen = options.chosen()
    if adapter is not None:
        chosen = {**adapter.config, **chosen}
    given = (chosen.get("window"), opened.backbone.get("local_window"))
    windows: list[int] = [window for window in given if isinstance(window, int)]
    if windows and "chunk" not in chosen:  # a chunk never outlasts a window
        chosen["chunk"] = min(AllMemConfig.chunk, *windows)
    logger.info("reading %s", opened.provenance["name"])
    wanted = DTYPES[dtype] if dtype else None
    chosen |= changes or {}
    if "decoder" in opened.backbone:
        if adapter is not None:
            raise ConversionError(
                f"{opened.provenance['name']} goes the generic path, whose memories cannot be "
                "trained yet.",
                "Leave --memory out.",
            )
        generic = GenericConfig(**opened.backbone, **chosen)
        return opened, GenericConverted(generic, opened, wanted, seed), None
    config = AllMemConfig(**opened.backbone, **chosen)
    return opened, ConvertedWeights(config, opened, wanted, seed, adapter), adapter
