"""The pretrained decoder's own layers, around the window attention operator.

Parameter names are those of transformers, so weights move without renaming. The layers take any
number of tokens and cut them only where the operators need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.operators import attention_operator

Cuts = Sequence[tuple[int, int]]
"""Pieces (first, last + 1) of the input, none crossing a chunk boundary."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


def exact(tensor: Tensor) -> Tensor:
    """At least float32: the operators take gains and fast weights in no less."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def scaled(tensor: Tensor, scale: float) -> Tensor:
    """A tensor times a number; most models have 1, which costs nothing."""
    return tensor if scale == 1.0 else tensor * scale


def each_piece(
    cuts: Cuts, position: Tensor, streams: Sequence[Tensor], run: Callable[..., tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """Run an operator over the pieces of ``streams`` [batch, time, ...], handing its state on.

    Args:
        cuts: the pieces.
        position: [1] int64, absolute index of the first token.
        streams: tensors to cut along time.
        run: (streams, position, state) -> (output, *state).
        state: before the first piece.

    Returns:
        The outputs joined along time, and the last state.
    """
    outputs = []
    for first, end in cuts:
        output, *after = run([s[:, first:end] for s in streams], position + first, state)
        state = tuple(after)
        outputs.append(output)
    return torch.cat(outputs, dim=1), state


class RMSNorm(nn.Module):
    """Root mean square norm with a gain; squares are summed in at least float32."""

    def __init__(self, size: int, epsilon: float, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon, self.scale = epsilon, scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis."""
        wide = exact(x)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return scaled(self.weight * wide.to(x.dtype), self.scale)


class Back(nn.Linear):
    """The product that brings a branch back into the token stream, times a number."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, scale: float) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] to […, outputs]."""
        return scaled(super().forward(x), self.scale)


class Embedding(nn.Embedding):
    """Rows of a table, times a number."""

    def __init__(self, rows: int, size: int, scale: float) -> None:
        super().__init__(rows, size)
        self.scale = scale

    def forward(self, ids: Tensor) -> Tensor:
        """[…] int64 to […, size]."""
        return scaled(super().forward(ids), self.scale)


class MLP(nn.Module):
    """The gated feed-forward network."""

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__()
        size, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(size, inner, bias=bias)
        self.up_proj = nn.Linear(size, inner, bias=bias)
        self.down_proj = Back(inner, size, bias=bias, scale=config.residual_scale)
        self.activation = _ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, hidden_size] to the same."""
        mixed: Tensor = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return mixed


class WindowAttention(nn.Module):
    """Grouped-query attention over sinks and window."""

    def __init__(self, config: AllMemConfig, layer: int, rope_amplitude: float) -> None:
        super().__init__()
        size, dim = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * dim, config.num_key_value_heads * dim
        self.q_proj = nn.Linear(size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(size, keys, bias=config.qkv_bias)
        self.o_proj = Back(queries, size, bias=config.attention_bias, scale=config.residual_scale)
        if config.head_norms:
            self.q_norm = RMSNorm(dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(dim, config.rms_norm_eps)
        self.head_norms = config.head_norms
        self.head_dim = dim
        self.rotated = config.rotates(layer)
        self.attributes = config.attention_attributes(layer, rope_amplitude)

    def forward(
        self, x: Tensor, position: Tensor, frequencies: Tensor, state: tuple[Tensor, ...],
        cuts: Cuts,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
        """Attend from x [batch, time, hidden_size].

        Args:
            x: the normed token stream.
            position: [1] int64.
            frequencies: [rotary_half] float32.
            state: key and value ring, and their scales where they are int8.
            cuts: see ``Cuts``.

        Returns:
            [batch, time, hidden_size] and the rings.
        """
        if not self.rotated:
            frequencies = torch.zeros_like(frequencies)
        if self.head_norms:
            gains = (exact(self.q_norm.weight), exact(self.k_norm.weight))
        else:  # the operator takes gains in any case; it reads them only where there are norms
            ones = torch.ones(self.head_dim, device=x.device, dtype=exact(x).dtype)
            gains = (ones, ones)

        def run(
            streams: Sequence[Tensor], at: Tensor, rings: tuple[Tensor, ...]
        ) -> tuple[Tensor, ...]:
            attend = attention_operator(self.attributes, rings)
            present: tuple[Tensor, ...] = attend(
                streams[0], at, frequencies, *gains, *rings, **self.attributes
            )
            return present

        qkv = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)
        output, rings = each_piece(cuts, position, [qkv], run, state)
        mixed: Tensor = self.o_proj(output)
        return mixed, rings
