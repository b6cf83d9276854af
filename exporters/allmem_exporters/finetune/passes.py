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
    Rotary,
    full_attention,
    project,
    windowed_attention,
)
from allmem_exporters.finetune.recall import recall
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.layers import RMSNorm
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
    """

    def __init__(self, model: AllMemForCausalLM) -> None:
        self.model = model
        self.decoder = model.model
        self.head = model.lm_head.weight
        self.device = self.head.device
        frequencies = torch.tensor(
            self.decoder.frequencies, dtype=torch.float32, device=self.device
        )
        amplitude = self.decoder.layers[0].self_attn.attributes["rope_amplitude"]
        self.rotary = Rotary(frequencies, float(amplitude))

    def embed(self, ids: Tensor) -> Tensor:
        """[batch, time] to the residual stream [batch, time, hidden_size] in float32."""
        hidden: Tensor = self.decoder.embed_tokens(ids)
        return hidden.float()

    def last_norm(self, hidden: Tensor) -> Tensor:
        """The stream as the head takes it, in the type of the decoder's weights."""
        return self.normed(self.decoder.norm, hidden)

    def normed(self, norm: RMSNorm, hidden: Tensor) -> Tensor:
        """The stream after a norm, in the type of the decoder's weights."""
        normed: Tensor = norm(hidden)
        return normed.to(self.decoder.embed_tokens.weight.dtype)

    def mixed(self, layer: DecoderLayer, hidden: Tensor) -> Tensor:
        """The feed-forward half of a layer."""
        added: Tensor = layer.mlp(self.normed(layer.post_attention_layernorm, hidden))
        return hidden + added.float()

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
            x = self.normed(layer.input_layernorm, hidden)
            heads = project(layer.self_attn, x, self.rotary)
            attended = full_attention(layer.self_attn, heads, self.rotary)
            hidden = self.mixed(layer, hidden + attended.float())
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
        x = self.normed(layer.input_layernorm, hidden)
        heads = project(layer.self_attn, x, self.rotary)
        attended = windowed_attention(
            layer.self_attn, heads, self.rotary, shape.window, shape.sinks
        )
        hidden = hidden + attended.float()
        if memories:
            hidden = hidden + recall(layer.allmem, x, shape.chunk)
        return self.mixed(layer, hidden)
