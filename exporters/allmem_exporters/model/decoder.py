"""The decoder: embedding, layers with a memory beside the attention, and the last norm.

It knows neither tokens' probabilities nor how its weights came about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.layers import MLP, Cuts, Embedding, RMSNorm, WindowAttention
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.rope import rotary_frequencies
from allmem_exporters.model.state import AllMemState, LayerState


class DecoderLayer(nn.Module):
    """One layer: window attention and memory side by side, then the feed-forward network."""

    def __init__(self, config: AllMemConfig, index: int, rope_amplitude: float) -> None:
        super().__init__()
        self.self_attn = WindowAttention(config, index, rope_amplitude)
        self.allmem = Memory(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, position: Tensor, frequencies: Tensor, cuts: Cuts, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """From hidden [batch, time, hidden_size] and the layer's state to those after it."""
        x, state = self.input_layernorm(hidden), LayerState(*tensors)
        attended, rings = self.self_attn(x, position, frequencies, state.rings, cuts)
        recalled, memory = self.allmem(x, position, state.memory, cuts)
        hidden = hidden + attended + recalled
        hidden = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return hidden, *rings[:2], *memory, *rings[2:]


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    _gradient_checkpointing_func: Callable[..., Any]  # given by gradient_checkpointing_enable

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__()
        self.frequencies, amplitude = rotary_frequencies(config)
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config.embedding_scale)
        layers = (DecoderLayer(config, at, amplitude) for at in range(config.num_hidden_layers))
        # PyTorch gives the elements of a ModuleList no type of their own.
        self.layers = cast("Sequence[DecoderLayer]", nn.ModuleList(layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, config.logits_scale)
        self.gradient_checkpointing = False

    def forward(
        self, input_ids: Tensor, position: Tensor, state: AllMemState, cuts: Cuts
    ) -> tuple[Tensor, AllMemState]:
        """Tokens [batch, time] to normed hidden states, layer by layer over all pieces."""
        hidden = self.embed_tokens(input_ids)
        frequencies = torch.tensor(self.frequencies, dtype=torch.float32, device=hidden.device)
        after = []
        for layer, past in zip(self.layers, state.layers, strict=True):
            inputs = (hidden, position, frequencies, cuts, *past.tensors())
            if self.gradient_checkpointing and self.training:
                hidden, *present = self._gradient_checkpointing_func(layer.__call__, *inputs)
            else:
                hidden, *present = layer(*inputs)
            after.append(LayerState(*present))
        return self.norm(hidden), AllMemState(tuple(after))
