"""Open a converted checkpoint, or say what is wrong with it.

It is read as data: nothing of it reaches a loader that could run code or fetch something.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PretrainedConfig

from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.local_files import json_in, refuse_code, weight_files
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.modeling import AllMemForCausalLM

_MAKE = "Make one with `allmem convert SOURCE CHECKPOINT`."
_AGAIN = "Convert its source again."
_HEAD = "lm_head.weight"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_WITHOUT_EFFECT = {"model_type", "torch_dtype", "use_cache"}


def open_checkpoint(folder: Path, dtype: torch.dtype | str, **changes: Any) -> AllMemForCausalLM:
    """A checkpoint made by ``convert`` or ``save_pretrained``, ready to be read with.

    Weights of the wanted type stay mapped from their files until they are used.

    Args:
        folder: of the checkpoint.
        dtype: of its weights; ``auto`` for the one that its configuration names.
        changes: fields of the configuration to set otherwise.

    Raises:
        ConversionError: it is missing, damaged, of another kind, or lacks a weight.
        ConfigError: its configuration or a change is not allowed.
    """
    config = read_config(folder, **changes)
    if dtype == "auto":
        dtype = config.dtype or torch.float32
    assert isinstance(dtype, torch.dtype)
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    _load(model, folder, dtype)
    model.tie_weights()
    model.config.dtype = dtype
    model.eval()
    return model


def read_config(folder: Path, **changes: Any) -> AllMemConfig:
    """The configuration of a checkpoint.

    Args:
        folder: of the checkpoint.
        changes: fields to set otherwise.

    Raises:
        ConversionError: there is none, it is of another kind of model, or it asks for code.
        ConfigError: a field is unknown, or its value is not allowed.
    """
    path = folder / "config.json"
    values = json_in(folder, path.name)
    if values is None:
        raise ConversionError(f"{folder} is no checkpoint: it has no config.json.", _MAKE)
    if (kind := values.get("model_type")) != AllMemConfig.model_type:
        raise ConversionError(f"{folder} is a model of type {kind!r} without memories.", _MAKE)
    refuse_code(values, path)
    general = PretrainedConfig.__dataclass_fields__.keys() | _WITHOUT_EFFECT
    fields = {key: value for key, value in values.items() if key not in general}
    unknown = sorted(fields.keys() - AllMemConfig.__dataclass_fields__.keys())
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]!r} is no option of an AllMem model.", _AGAIN)
    stored = values.get("dtype", values.get("torch_dtype", "float32"))
    if stored not in _DTYPES:
        raise ConfigError(f"{path}: dtype is {stored!r}; allowed: {', '.join(_DTYPES)}.")
    try:
        config = AllMemConfig(**{**fields, **changes})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).", _AGAIN) from None
    config.dtype = _DTYPES[stored]
    return config


def _load(model: AllMemForCausalLM, folder: Path, dtype: torch.dtype) -> None:
    """Put the weights of a folder into a model that has none."""
    wanted = dict(model.named_parameters(remove_duplicate=False))
    if model.config.tie_word_embeddings:
        wanted.pop(_HEAD, None)
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    if name == _HEAD and model.config.tie_word_embeddings:
                        continue
                    _put(model, name, opened.get_tensor(name), wanted, dtype, file)
        except (OSError, SafetensorError) as error:
            raise ConversionError(f"{file} cannot be read ({error}).", _AGAIN) from None
    if wanted:
        raise ConversionError(f"{folder} lacks the weight {min(wanted)}.", _MAKE)


def _put(
    model: AllMemForCausalLM,
    name: str,
    tensor: torch.Tensor,
    wanted: dict[str, nn.Parameter],
    dtype: torch.dtype,
    file: Path,
) -> None:
    place = wanted.pop(name, None)
    if place is None:
        raise ConversionError(f"{file}: the weight {name} has no place in this model.", _AGAIN)
    if tensor.shape != place.shape or not tensor.is_floating_point():
        raise ConversionError(
            f"{file}: the weight {name} is {tensor.dtype} {list(tensor.shape)}; its config.json "
            f"asks for numbers of {list(place.shape)}.",
            _AGAIN,
        )
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(dtype)))
