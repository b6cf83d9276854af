"""What a converted model makes of a text that its window covers.

One layer lies in memory at a time. The memories take no part: they have nothing to say before they
are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor, nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.layers import Cuts, capped
from allmem_exporters.model.memory_layer import MEMORY
from allmem_exporters.model.modeling import pieces
from allmem_exporters.model.norms import scaled
from allmem_exporters.model.state import blank_layer
from allmem_exporters.model.weights import (
    EMBEDDING,
    HEAD,
    ChangedWeights,
    ModelWeights,
    load_last_norm,
    load_layer,
)


class _Silent(nn.Module):
    """Stands where a memory stood."""

    def forward(
        self, x: Tensor, position: Tensor, state: tuple[Tensor, ...], cuts: Cuts
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return torch.zeros_like(x), state


def _silence(layer: DecoderLayer) -> None:
    layer.allmem = _Silent()  # type: ignore[assignment]


def with_window(config: AllMemConfig, window: int, local: int | None = None) -> AllMemConfig:
    """The configuration of the same model without sinks and with other windows.

    Args:
        config: of the model; stays as it is.
        window: of its layers that have none of their own.
        local: of the others; a model without such needs none.
    """
    changed = copy(config)
    changed.windows, changed.window, changed.sinks = None, window, 0
    changed.local_window = None if config.local_window is None else local
    changed.chunk = min(config.chunk, window, changed.local_window or window)
    changed.cache_dtype = "float32"
    return changed


@torch.inference_mode()
def converted_logits(
    weights: ModelWeights,
    vocabulary: Sequence[int],
    tokens: Sequence[int],
    window: int,
    local: int,
    dtype: torch.dtype,
) -> Tensor:
    """Of each token the logits of some tokens, [time, vocabulary].

    Args:
        weights: of the model.
        vocabulary: tokens, by their rows.
        tokens: a text, by places in the vocabulary.
        window: of all layers but local ones; there are no sinks.
        local: window of layers that keep the one they were trained with, where there are such.
        dtype: to compute in, float32 or float64.
    """
    config = with_window(weights.config, window, local)
    changed = ChangedWeights(weights, _silence, config)

    def rows(name: str) -> Tensor:
        return torch.cat([weights.rows(name, row, row + 1) for row in vocabulary]).to(dtype)

    hidden = scaled(rows(EMBEDDING)[list(tokens)][None], config.embedding_scale)
    cuts = pieces(0, len(tokens), config.chunk)
    for index in range(config.num_hidden_layers):
        layer = load_layer(changed, index, lambda name: not f".{name}".startswith(MEMORY))
        state = blank_layer(config, index, dtype=dtype).tensors()
        hidden, *_ = layer.to(dtype)(hidden, torch.tensor([0]), cuts, *state)
    norm = load_last_norm(weights).to(dtype)
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    return capped(norm(hidden) @ rows(head).T, config.logits_softcap)[0]
