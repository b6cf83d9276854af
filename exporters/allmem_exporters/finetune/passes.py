"""Teacher and student as two passes over one frozen decoder.

The residual stream is float32; the products run in the type of the decoder's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from allmem_exporters.finetune.attention import (
    Heads,
    full_attention,
    project,
    windowed_attention,
)
from allmem_exporters.finetune.recall import recall
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.modeling import AllMemForCausalLM


@dataclass(frozen=True, slots=True)
class Shape:
    """What a training step draws: tokens seen, first tokens seen by all, tokens between commits."""

    window: int
    sinks: int
    chunk: int


class LayerView(NamedTuple):
    """What one layer of the teacher saw and did.

    Attributes:
        x: [batch, time, hidden_size], the normed token stream.
        heads: queries, keys, values.
        attended: [batch, time, hidden_size], by full attention.
        after: [batch, time, hidden_size], the residual stream after the layer.
    """

    x: Tensor
    heads: Heads
    attended: Tensor
    after: Tensor


class Passes:
    """The frozen decoder with its memories.

    Args:
        model: decoder weights in any type, memory parameters in float32.

    Attributes:
        head: [vocab_size, hidden_size], from normed hidden states to logits.
        softcap: of the logits, of which ``head`` then makes parts; None where there is none.
    """

    def __init__(self, model: AllMemForCausalLM) -> None:
        self.model = model
        self.decoder = model.model
        self.head = model.lm_head.weight
        self.device = self.head.device
        self.softcap = model.config.logits_softcap

    def embed(self, ids: Tensor) -> Tensor:
        """[batch, time] to the residual stream [batch, time, hidden_size] in float32."""
        hidden: Tensor = self.decoder.embed_tokens(ids)
        return hidden.float()

    def last_norm(self, hidden: Tensor) -> Tensor:
        """The stream as the head takes it, in the type of the decoder's weights."""
        return self._narrow(self.decoder.norm(hidden))

    def read(self, layer: DecoderLayer, hidden: Tensor) -> Tensor:
        """What attention and memory read, in the type of the decoder's weights."""
        return self._narrow(layer.normed("before_mixing", hidden))

    def after(self, layer: DecoderLayer, hidden: Tensor, x: Tensor, mixed: Tensor) -> Tensor:
        """The residual stream after a layer.

        Args:
            layer: whose feed-forward network reads.
            hidden: [batch, time, hidden_size], the residual stream before it.
            x: what attention and memory read.
            mixed: what they add, before a norm behind them.
        """
        hidden = hidden + layer.normed("behind_mixing", mixed.float())
        read = x if layer.parallel else self._narrow(layer.normed("before_mlp", hidden))
        added: Tensor = layer.normed("behind_mlp", layer.mlp(read).float())
        return hidden + added

    def _narrow(self, stream: Tensor) -> Tensor:
        return stream.to(self.decoder.embed_tokens.weight.dtype)

    @torch.no_grad()
    def teacher(self, ids: Tensor) -> Tensor:
        """Normed hidden states [batch, time, hidden_size] of the pretrained model."""
        hidden = self.embed(ids)
        for _, view in self.teacher_layers(ids):
            hidden = view.after
        return self.last_norm(hidden)

    @torch.no_grad()
    def teacher_layers(self, ids: Tensor) -> Iterator[tuple[DecoderLayer, LayerView]]:
        """Each layer of the pretrained model with what it sees and does."""
        hidden = self.embed(ids)
        for layer in self.decoder.layers:
            x = self.read(layer, hidden)
            heads = project(layer.self_attn, x)
            attended = full_attention(layer.self_attn, heads)
            hidden = self.after(layer, hidden, x, attended)
            yield layer, LayerView(x, heads, attended, hidden)

    def student(self, ids: Tensor, shape: Shape, *, memories: bool = True) -> Tensor:
        """Normed hidden states of the model with windows and memories.

        Args:
            ids: [batch, time].
            shape: of the window and the chunks.
            memories: without them it is the model that only has a window and sinks.
        """
        hidden = self.embed(ids)
        for layer in self.decoder.layers:
            if torch.is_grad_enabled() and memories:
                hidden = checkpoint(
                    self._layer, layer, hidden, shape, True,
                    use_reentrant=False, preserve_rng_state=False,
                )  # fmt: skip
            else:
                hidden = self._layer(layer, hidden, shape, memories)
        return self.last_norm(hidden)

    def _layer(self, layer: DecoderLayer, hidden: Tensor, shape: Shape, memories: bool) -> Tensor:
        x = self.read(layer, hidden)
        heads = project(layer.self_attn, x)
        mixed = windowed_attention(layer.self_attn, heads, shape.window, shape.sinks).float()
        if memories:
            mixed = mixed + recall(layer.allmem, x, shape.chunk)
        return self.after(layer, hidden, x, mixed)
