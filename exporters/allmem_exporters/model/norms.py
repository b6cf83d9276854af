"""Norms of a decoder, and where they stand in its layers.

Names are those of transformers, of Llama for norms before the branches and of Gemma for those
behind.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from allmem_exporters.model.config import AllMemConfig

Place = Literal["before_mixing", "behind_mixing", "before_mlp", "behind_mlp"]
"""Of what attention and memory read, and of what they add; of the feed-forward network the same."""

NORMS: dict[str, dict[Place, str]] = {
    "before": {"before_mixing": "input_layernorm", "before_mlp": "post_attention_layernorm"},
    "around": {
        "before_mixing": "input_layernorm",
        "behind_mixing": "post_attention_layernorm",
        "before_mlp": "pre_feedforward_layernorm",
        "behind_mlp": "post_feedforward_layernorm",
    },
    "behind": {
        "behind_mixing": "post_attention_layernorm",
        "behind_mlp": "post_feedforward_layernorm",
    },
    "parallel": {"before_mixing": "input_layernorm"},
}
"""A layer's norms by their places, by ``Family.norms``."""


def exact(tensor: Tensor) -> Tensor:
    """At least float32: the operators take gains and fast weights in no less."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def scaled(tensor: Tensor, scale: float) -> Tensor:
    """A tensor times a number; most models have 1, which costs nothing."""
    return tensor if scale == 1.0 else tensor * scale


class Norm(nn.Module):
    """Root mean square norm with a gain, or LayerNorm with a gain and without a bias.

    Squares are summed in at least float32. Some families store the gain less 1.
    """

    def __init__(self, config: AllMemConfig, size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon, self.scale = config.rms_norm_eps, scale
        self.centered, self.unit_gain = config.family.centered, config.family.unit_gain

    @property
    def gain(self) -> Tensor:
        """[size], what the normalized numbers are multiplied with."""
        return scaled(1 + exact(self.weight) if self.unit_gain else self.weight, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis."""
        wide = exact(x)
        if self.centered:
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        if self.unit_gain:
            return (self.gain * wide).to(x.dtype)
        return scaled(self.weight * wide.to(x.dtype), self.scale)
