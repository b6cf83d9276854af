"""Conversion of a model that lies in memory; the result shares its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from allmem_exporters.convert.converted_weights import check_entries, refuse_other_head
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.initialize import initialize_memories
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.weights import EMBEDDING, HEAD
from allmem_exporters.sources import backbone_options
from allmem_exporters.sources.fitting import exact_type
from allmem_exporters.sources.packed_weights import UnpackedWeights, WeightsByName
from allmem_exporters.tensor_reader import Entry
from allmem_runtime.options import from_keywords


def convert_model(
    pretrained: PreTrainedModel,
    config: AllMemConfig | None = None,
    *,
    seed: int = 0,
    **options: Any,
) -> AllMemForCausalLM:
    """Convert a model in memory; the result shares its weights.

    Args:
        pretrained: a language model of transformers, of one of ``FAMILIES``.
        config: of the result; None to derive it from the model and ``options``.
        seed: of the memory's initial values.
        options: fields of ``MemoryOptions``, if there is no ``config``.

    Raises:
        ConversionError: the model is unsupported or does not fit the configuration.
    """
    origin = type(pretrained).__name__
    backbone = backbone_options(pretrained.config, origin)
    if config is None:
        chosen = from_keywords(MemoryOptions, options, ConfigError).chosen()
        config = AllMemConfig(**backbone, **chosen)
    elif options:
        raise ConfigError(f"Give either a config or options, not both ({', '.join(options)}).")
    for key, value in backbone.items():
        if getattr(config, key) != value:
            raise ConversionError(
                f"{origin}: the configuration says {key} is {getattr(config, key)!r}, the model "
                f"says {value!r}.",
                "Derive the configuration from the model.",
            )
    found = WeightsByName({n: t.detach() for n, t in pretrained.state_dict().items()})
    unpacked = UnpackedWeights(found, found.entries, backbone, origin)
    tensors = ((name, unpacked.tensor(name)) for name in unpacked.entries)
    model = assemble(config, tensors, None, origin)
    initialize_memories(model.model, seed)
    return model


def assemble(
    config: AllMemConfig,
    tensors: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype | None,
    origin: str,
) -> AllMemForCausalLM:
    """Build a model around pretrained weights, which it takes over without a copy.

    Its memories are empty; see ``initialize_memories``.

    Args:
        config: sizes.
        tensors: every weight of the decoder under transformers' name, each needed once.
        dtype: of the result; None for the narrowest type that holds all the weights exactly.
        origin: name for error messages.

    Raises:
        ConversionError: a weight is missing, left over, misshapen or not a plain number type.
    """
    found = dict(tensors)
    entries = {name: Entry(t.dtype, tuple(t.shape), 0) for name, t in found.items()}
    used = check_entries(config, entries, origin)
    exact = dtype or exact_type(entries, used)
    if config.tie_word_embeddings:
        head, embedding = found.get(HEAD), found[EMBEDDING]
        if head is not None and not torch.equal(head, embedding):
            raise refuse_other_head(origin)
        found[HEAD] = embedding
        used = [*used, *({HEAD} - set(used))]
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    for name in used:
        _put(model, name, nn.Parameter(found.pop(name).to(exact)))
    for layer in model.model.layers:
        layer.allmem.to(exact).to_empty(device="cpu")
    model.tie_weights()
    model.config.dtype = exact
    model.eval()
    return model


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, parameter)
