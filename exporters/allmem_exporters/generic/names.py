"""The weights of a model on the generic path: their names, shapes and where they belong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.decoder import model_without_values
from allmem_exporters.model.memory_layer import MEMORY
from allmem_exporters.sources.fitting import check_fit
from allmem_exporters.tensor_reader import Entry


@dataclass(frozen=True, slots=True)
class Tables:
    """Modules with a row for each token.

    Attributes:
        embedding: path of its module.
        head: path of its module.
        tied: the head's weight is the embedding's.
    """

    embedding: str
    head: str
    tied: bool


def tables_of(model: PreTrainedModel) -> Tables:
    """Where the tables of a model of transformers are."""
    paths = {id(module): path for path, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    return Tables(paths[id(embedding)], paths[id(head)], tied)


def weight_shapes(config: GenericConfig) -> dict[str, tuple[int, ...]]:
    """The weights of a checkpoint by name: those of transformers' model, and of the memories."""
    model = model_without_values(config)
    tables = tables_of(model)
    found = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    if tables.tied:
        found.pop(f"{tables.head}.weight", None)
    return found | {name: tuple(b.shape) for name, b in buffers_without_values(model).items()}


def buffers_without_values(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that the configuration does not determine, by name: they are weights, too."""
    found = {}
    for name, buffer in model.named_buffers():
        if buffer.dtype.is_floating_point and bool(buffer.isnan().any()):
            found[name] = buffer
    return found


def check_names(config: GenericConfig, entries: Mapping[str, Entry], origin: str) -> list[str]:
    """Hold the weights of a source against what its decoder needs.

    Args:
        config: of the result.
        entries: types and shapes of the weights by transformers' names.
        origin: name for error messages.

    Returns:
        The names of those that are used.

    Raises:
        ConversionError: a weight is missing, left over, misshapen or not a plain number type.
    """
    model = model_without_values(config)
    tables = tables_of(model)
    ignored = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()),
               r"(^|\.)inv_freq$"]  # fmt: skip
    buffers = {name for name, _ in model.named_buffers()}
    wanted = {n: s for n, s in weight_shapes(config).items() if MEMORY not in n}

    def is_ignored(name: str) -> bool:
        tied = tables.tied and name == f"{tables.head}.weight"
        return tied or name in buffers or any(re.search(one, name) for one in ignored)

    used = {n: one for n, one in entries.items() if n in wanted or not is_ignored(n)}
    check_fit(used, wanted, backbone=config.backbone, origin=origin)
    return list(wanted)
