"""A model's weights one at a time: the whole model never lies in memory.

Where they come from is up to what implements ``ModelWeights``: a checkpoint's files, a pretrained
model that is converted on the way, or a model in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.memory_layer import MEMORY
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.norms import Norm

EMBEDDING, HEAD, LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"

_BYTES_AT_ONCE = 16 << 20
"""Of a table that are read together."""


class ModelWeights(Protocol):
    """The weights of an AllMem model by the names of its parameters."""

    config: AllMemConfig

    def tensor(self, name: str) -> Tensor:
        """A weight, in whatever floating type it has; not to be changed."""

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight."""

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """Scale and minimum of each block of 32 in which the source stores these rows.

        Returns:
            [rows, blocks, 2] float32; None where the source stores no such blocks.
        """


class WeightsInMemory:
    """The weights of a model that is there already.

    Args:
        model: must stay as it is.
    """

    def __init__(self, model: AllMemForCausalLM) -> None:
        self.config = model.config
        self._parameters = dict(model.named_parameters(remove_duplicate=False))

    def tensor(self, name: str) -> Tensor:
        """See ``ModelWeights``."""
        return self._parameters[name].detach()

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """See ``ModelWeights``."""
        return self.tensor(name)[first:end]

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``ModelWeights``."""
        return None


class ChangedWeights:
    """Weights of which some layers' parameters are other ones.

    Args:
        weights: before the change.
        change: of one layer in float32, in place.
        config: another configuration of the same model; None for its own.
    """

    def __init__(
        self,
        weights: ModelWeights,
        change: Callable[[DecoderLayer], None],
        config: AllMemConfig | None = None,
    ) -> None:
        self.config = config or weights.config
        self.weights, self.change = weights, change

    def tensor(self, name: str) -> Tensor:
        """See ``ModelWeights``; a layer's are changed by ``load_layer`` alone."""
        return self.weights.tensor(name)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """See ``ModelWeights``."""
        return self.weights.rows(name, first, end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``ModelWeights``."""
        return self.weights.factors(name, first, end)


def empty_layer(config: AllMemConfig, index: int = 0) -> DecoderLayer:
    """A decoder layer without values; windows and rope may differ by ``index``."""
    with torch.device("meta"):
        return DecoderLayer(config, index).eval()


def load_layer(
    weights: ModelWeights, index: int, wanted: Callable[[str], bool] = lambda name: True
) -> DecoderLayer:
    """A decoder layer in float32.

    Args:
        weights: of the model.
        index: of the layer.
        wanted: whether a parameter, by its name within the layer, gets its values; others have
            none, on the device ``meta``.
    """
    layer = empty_layer(weights.config, index)
    for name, _ in list(layer.named_parameters()):
        if wanted(name):
            owner, _, leaf = name.rpartition(".")
            value = weights.tensor(f"model.layers.{index}.{name}")
            # A copy: what is done to the layer must not reach the source.
            copied = value.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            setattr(layer.get_submodule(owner), leaf, nn.Parameter(copied, requires_grad=False))
    if isinstance(weights, ChangedWeights):
        weights.change(layer)
    return layer


def load_last_norm(weights: ModelWeights) -> Norm:
    """The norm before the head, in the type of its weight."""
    norm = Norm(weights.config, weights.config.hidden_size, weights.config.head_scale)
    norm.weight = nn.Parameter(weights.tensor(LAST_NORM), requires_grad=False)
    return norm


class Table:
    """An embedding or a head, read some rows at a time.

    Args:
        weights: of the model.
        name: of the parameter.
    """

    def __init__(self, weights: ModelWeights, name: str) -> None:
        self.weights, self.name = weights, name
        self.shape = (weights.config.vocab_size, weights.config.hidden_size)

    def rows(self, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` in float32."""
        return self.weights.rows(self.name, first, end).float()

    def block_factors(self, first: int, end: int) -> Tensor | None:
        """Their blocks' scales and minimums, see ``ModelWeights``."""
        return self.weights.factors(self.name, first, end)

    def pieces(self, multiple: int = 1) -> Iterator[tuple[int, int]]:
        """(first row, last row + 1) of pieces of some mebibytes.

        Args:
            multiple: of which every first row is one.
        """
        rows, columns = self.shape
        step = max(1, _BYTES_AT_ONCE // (4 * columns) // multiple) * multiple
        for first in range(0, rows, step):
            yield first, min(first + step, rows)


def decoder_digest(weights: ModelWeights) -> str:
    """The same as ``base_digest`` of the whole model, one weight at a time."""
    with torch.device("meta"):
        model = AllMemForCausalLM(weights.config)
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if MEMORY in name or (name == HEAD and weights.config.tie_word_embeddings):
            continue
        digest.update(f"{name} {list(parameter.shape)}\n".encode())
        if name in (EMBEDDING, HEAD):
            table = Table(weights, name)
            for first, end in table.pieces():
                digest.update(table.rows(first, end).contiguous().numpy().data)
        else:
            digest.update(weights.tensor(name).float().contiguous().numpy().data)
    return digest.hexdigest()
