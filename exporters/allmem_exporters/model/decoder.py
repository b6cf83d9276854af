"""The decoder: embedding, layers with a memory beside the attention, and the last norm.

It knows neither tokens' probabilities nor how its weights came about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.layers import MLP, Cuts, Embedding, WindowAttention
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.norms import NORMS, Norm, Place
from allmem_exporters.model.state import AllMemState, LayerState


class DecoderLayer(nn.Module):
    """One layer: window attention and memory side by side, then the feed-forward network.

    Where norms stand, and whether the feed-forward network reads what attention has added to, the
    family says: see ``Family.norms``.
    """

    def __init__(self, config: AllMemConfig, index: int) -> None:
        super().__init__()
        self.self_attn = WindowAttention(config, index)
        self.allmem = Memory(config)
        self.mlp = MLP(config)
        self.names = NORMS[config.family.norms]
        for name in self.names.values():
            setattr(self, name, Norm(config, config.hidden_size))
        self.parallel = config.family.norms == "parallel"

    def norm(self, place: Place) -> Norm | None:
        """The norm at a place; None where there is none."""
        name = self.names.get(place)
        return cast("Norm", getattr(self, name)) if name else None

    def normed(self, place: Place, x: Tensor) -> Tensor:
        """[..., hidden_size] after the norm at a place."""
        norm = self.norm(place)
        normed: Tensor = x if norm is None else norm(x)
        return normed

    def forward(
        self, hidden: Tensor, position: Tensor, cuts: Cuts, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """From hidden [batch, time, hidden_size] and the layer's state to those after it."""
        x, state = self.normed("before_mixing", hidden), LayerState(*tensors)
        attended, rings = self.self_attn(x, position, state.rings, cuts)
        recalled, memory = self.allmem(x, position, state.memory, cuts)
        hidden = hidden + self.normed("behind_mixing", attended + recalled)
        read = x if self.parallel else self.normed("before_mlp", hidden)
        hidden = hidden + self.normed("behind_mlp", self.mlp(read))
        return hidden, *rings[:2], *memory, *rings[2:]


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    _gradient_checkpointing_func: Callable[..., Any]  # given by gradient_checkpointing_enable

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config.embedding_scale)
        layers = (DecoderLayer(config, at) for at in range(config.num_hidden_layers))
        # PyTorch gives the elements of a ModuleList no type of their own.
        self.layers = cast("Sequence[DecoderLayer]", nn.ModuleList(layers))
        self.norm = Norm(config, config.hidden_size, config.head_scale)
        self.gradient_checkpointing = False

    def forward(
        self, input_ids: Tensor, position: Tensor, state: AllMemState, cuts: Cuts
    ) -> tuple[Tensor, AllMemState]:
        """Tokens [batch, time] to normed hidden states, layer by layer over all pieces."""
        hidden = self.embed_tokens(input_ids)
        after = []
        for layer, past in zip(self.layers, state.layers, strict=True):
            inputs = (hidden, position, cuts, *past.tensors())
            if self.gradient_checkpointing and self.training:
                hidden, *present = self._gradient_checkpointing_func(layer.__call__, *inputs)
            else:
                hidden, *present = layer(*inputs)
            after.append(LayerState(*present))
        return self.norm(hidden), AllMemState(tuple(after))
