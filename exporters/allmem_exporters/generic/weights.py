"""The weights of models on the generic path: converted from a source, or read from a checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from allmem_exporters.ablation.memory_ablation import SILENCED_RATE
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.names import check_names, weight_shapes
from allmem_exporters.local_files import json_in
from allmem_exporters.model.checkpoint import GENERIC_TYPE, CheckpointWeights
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.initialize import initialize_memory
from allmem_exporters.model.memory_layer import MEMORY, Memory
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.sources import Source
from allmem_exporters.sources.fitting import exact_type, finite_as


class GenericConverted:
    """A source's decoder with a fresh memory in each layer.

    Args:
        config: of the result; its dtype is set.
        source: of the decoder.
        dtype: of the result; None for the narrowest type that holds all the weights exactly.
        seed: of the memories.

    Raises:
        ConversionError: the source does not fit the configuration.
    """

    warm = False
    """Whether fresh memories are started from the attention."""

    def __init__(
        self, config: GenericConfig, source: Source, dtype: torch.dtype | None, seed: int
    ) -> None:
        used = check_names(config, source.entries, source.provenance["name"])
        self.config: AllMemConfig = config
        self.source, self._seed = source, seed
        self.dtype = config.dtype = dtype or exact_type(source.entries, used)
        self._layers = {site.path: at for at, site in enumerate(config.probed.sites)}
        self._latest: tuple[str, dict[str, Tensor]] = ("", {})

    def tensor(self, name: str) -> Tensor:
        """See ``ModelWeights``."""
        return (
            self._memory(name) if MEMORY in name else self._finite(name, self.source.tensor(name))
        )

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """See ``ModelWeights``."""
        if MEMORY in name:
            return self._memory(name)[first:end]
        return self._finite(name, self.source.rows(name, first, end))

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``ModelWeights``."""
        return None

    def _finite(self, name: str, values: Tensor) -> Tensor:
        return finite_as(values, self.dtype, name, self.source.provenance["name"])

    def _memory(self, name: str) -> Tensor:
        path, inner = name.split(MEMORY)
        if self._latest[0] != path:
            memory = Memory(self.config).to(self.dtype)
            number = self._seed * len(self._layers) + self._layers[path]
            initialize_memory(memory, torch.Generator().manual_seed(number))
            self._latest = path, {n: p.detach() for n, p in memory.named_parameters()}
        return self._latest[1][inner]


class GenericCheckpoint(CheckpointWeights):
    """The same of a model on the generic path."""

    config_class = GenericConfig

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See ``CheckpointWeights``."""
        assert isinstance(self.config, GenericConfig)
        _ = self.config.probed  # refuses by name what transformers' code cannot run
        return weight_shapes(self.config)


def open_weights(folder: Path, **changes: Any) -> ModelWeights:
    """The weights of a checkpoint on either path.

    Args:
        folder: of the checkpoint.
        changes: fields of the configuration to set otherwise.

    Raises:
        ConversionError: it is missing, damaged, of another kind, or lacks a weight.
        ConfigError: its configuration or a change is not allowed.
    """
    kind = (json_in(folder, "config.json") or {}).get("model_type")
    if kind == GENERIC_TYPE:
        return GenericCheckpoint(folder, **changes)
    return CheckpointWeights(folder, **changes)


class Restrained:
    """Weights whose memories are frozen (never written) or disabled (without effect).

    Args:
        weights: of the model.
        memory: ``frozen`` or ``disabled``.
    """

    def __init__(self, weights: ModelWeights, memory: str) -> None:
        self.config, self._weights, self._memory = weights.config, weights, memory

    def tensor(self, name: str) -> Tensor:
        """See ``ModelWeights``."""
        found = self._weights.tensor(name)
        if self._memory == "disabled" and name.endswith(f"{MEMORY}alpha"):
            return torch.zeros_like(found)
        if self._memory == "frozen" and f"{MEMORY}lr_proj." in name:
            return torch.full_like(found, SILENCED_RATE if name.endswith("bias") else 0.0)
        return found

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """See ``ModelWeights``."""
        return self._weights.rows(name, first, end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``ModelWeights``."""
        return self._weights.factors(name, first, end)


def generic_digest(weights: ModelWeights) -> str:
    """SHA-256 over the decoder's weights as float32, by name; memories are left out."""
    assert isinstance(weights.config, GenericConfig)
    digest = hashlib.sha256()
    for name, shape in sorted(weight_shapes(weights.config).items()):
        if MEMORY not in name:
            digest.update(f"{name} {list(shape)}\n".encode())
            digest.update(weights.tensor(name).float().contiguous().numpy().data)
    return digest.hexdigest()
