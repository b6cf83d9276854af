"""Opens a converted checkpoint, or says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_runtime.errors import AllMemError

_MAKE = "Make one with `allmem convert SOURCE CHECKPOINT`."


def open_checkpoint(folder: Path, dtype: torch.dtype | str, **changes: Any) -> AllMemForCausalLM:
    """A checkpoint made by ``convert`` or ``save_pretrained``, ready to be read with.

    Args:
        folder: of the checkpoint.
        dtype: of its weights; ``auto`` for their own.
        changes: fields of the configuration to set otherwise.

    Raises:
        ConversionError: it is missing, damaged, of another kind, or lacks a weight.
        ConfigError: its configuration or a change is not allowed.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ConversionError(f"{folder} is no checkpoint: it has no config.json.", _MAKE)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("model_type") if isinstance(config, dict) else None
        if kind != AllMemConfig.model_type:
            raise ConversionError(f"{folder} is a model of type {kind!r} without memories.", _MAKE)
        # A pair with loading info; transformers declares the model alone.
        opened: Any = AllMemForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **changes
        )
    except AllMemError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConversionError(
            f"{folder} cannot be read ({error}).", "Convert its source again."
        ) from error
    model: AllMemForCausalLM
    model, told = opened
    missing = sorted(told["missing_keys"])
    if missing:
        raise ConversionError(f"{folder} lacks the weight {missing[0]}.", _MAKE)
    model.eval()
    return model
