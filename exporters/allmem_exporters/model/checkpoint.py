"""Open a converted checkpoint, or say what is wrong with it.

It is read as data: nothing of it reaches a loader that could run code or fetch something.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PretrainedConfig

from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.local_files import json_in, refuse_code, weight_files
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.tensor_reader import Entry, TensorFile

GENERIC_TYPE = "allmem_generic"
"""``model_type`` of models around a decoder that transformers' own code computes."""

_MAKE = "Make one with `allmem convert SOURCE CHECKPOINT`."
_AGAIN = "Convert its source again."
_HEAD = "lm_head.weight"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_WITHOUT_EFFECT = {"model_type", "torch_dtype", "use_cache"}


def open_checkpoint(folder: Path, dtype: torch.dtype | str, **changes: Any) -> AllMemForCausalLM:
    """A checkpoint made by ``convert`` or ``save_pretrained``, ready to be read with.

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


def read_config(
    folder: Path, kind: type[AllMemConfig] = AllMemConfig, **changes: Any
) -> AllMemConfig:
    """The configuration of a checkpoint.

    Args:
        folder: of the checkpoint.
        kind: its class.
        changes: fields to set otherwise.

    Raises:
        ConversionError: there is none, it is of another kind of model, or it asks for code.
        ConfigError: a field is unknown, or its value is not allowed.
    """
    path = folder / "config.json"
    values = json_in(folder, path.name)
    if values is None:
        raise ConversionError(f"{folder} is no checkpoint: it has no config.json.", _MAKE)
    if (found := values.get("model_type")) != kind.model_type:
        if found == GENERIC_TYPE:
            raise ConversionError(
                f"{folder} is a {str(values.get('backbone'))[:80]} model on the generic path.",
                "Only `allmem export` takes such models; see docs/models.md.",
            )
        raise ConversionError(f"{folder} is a model of type {found!r} without memories.", _MAKE)
    refuse_code(values, path)
    general = PretrainedConfig.__dataclass_fields__.keys() | _WITHOUT_EFFECT
    fields = {key: value for key, value in values.items() if key not in general}
    unknown = sorted(fields.keys() - kind.__dataclass_fields__.keys())
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]!r} is no option of an AllMem model.", _AGAIN)
    stored = values.get("dtype", values.get("torch_dtype", "float32"))
    if not isinstance(stored, str) or stored not in _DTYPES:
        raise ConfigError(f"{path}: dtype is {stored!r}; allowed: {', '.join(_DTYPES)}.")
    try:
        config = kind(**{**fields, **changes})
    except (StrictDataclassError, TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).", _AGAIN) from None
    config.dtype = _DTYPES[stored]
    return config


class CheckpointWeights:
    """The weights of a checkpoint, read from its files one at a time.

    Args:
        folder: of the checkpoint.
        changes: fields of the configuration to set otherwise.

    Raises:
        ConversionError: it is missing, damaged, of another kind, or lacks a weight.
        ConfigError: its configuration or a change is not allowed.
    """

    config_class: ClassVar[type[AllMemConfig]] = AllMemConfig

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.config = read_config(folder, self.config_class, **changes)
        self._files = _places(self.shapes(), folder, tied=self.config.tie_word_embeddings)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all weights of the model, by name."""
        with torch.device("meta"):
            return _shapes(AllMemForCausalLM(self.config))

    def tensor(self, name: str) -> Tensor:
        """See ``ModelWeights``."""
        return self._files[name].tensor(name)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """See ``ModelWeights``."""
        return self._files[name].rows(name, first, end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``ModelWeights``."""
        return None


def _load(model: AllMemForCausalLM, folder: Path, dtype: torch.dtype) -> None:
    """Put the weights of a folder into a model that has none."""
    tied = model.config.tie_word_embeddings
    for name, file in _places(_shapes(model), folder, tied=tied).items():
        owner, _, leaf = name.rpartition(".")
        parameter = nn.Parameter(file.tensor(name).to(dtype))
        setattr(model.get_submodule(owner), leaf, parameter)


def _shapes(model: AllMemForCausalLM) -> dict[str, tuple[int, ...]]:
    parameters = model.named_parameters(remove_duplicate=False)
    return {name: tuple(parameter.shape) for name, parameter in parameters}


def _places(
    shapes: dict[str, tuple[int, ...]], folder: Path, *, tied: bool
) -> dict[str, TensorFile]:
    """The file of each weight; all of them are there and have these shapes."""
    wanted = dict(shapes)
    if tied:
        wanted.pop(_HEAD, None)
    places: dict[str, TensorFile] = {}
    for path in weight_files(folder):
        file = TensorFile(path)
        for name, entry in file.entries.items():
            if name == _HEAD and tied:
                continue
            _check(name, entry, wanted.pop(name, None), path)
            places[name] = file
    if wanted:
        raise ConversionError(f"{folder} lacks the weight {min(wanted)}.", _MAKE)
    return places


def _check(name: str, entry: Entry, place: tuple[int, ...] | None, file: Path) -> None:
    if place is None:
        raise ConversionError(f"{file}: the weight {name} has no place in this model.", _AGAIN)
    if entry.shape != place or not entry.dtype.is_floating_point:
        raise ConversionError(
            f"{file}: the weight {name} is {entry.dtype} {list(entry.shape)}; its config.json "
            f"asks for numbers of {list(place)}.",
            _AGAIN,
        )
