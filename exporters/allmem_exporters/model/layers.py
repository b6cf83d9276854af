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
from allmem_exporters.model.norms import Norm, exact, scaled
from allmem_exporters.model.operators import attention_operator
from allmem_exporters.model.rope import rotary_frequencies

Cuts = Sequence[tuple[int, int]]
"""Pieces (first, last + 1) of the input, none crossing a chunk boundary."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """Logits in parts of their cap to logits that stay below it; None leaves them as they are."""
    return logits if cap is None else cap * logits.tanh()


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

    def __init__(self, config: AllMemConfig, layer: int) -> None:
        super().__init__()
        size, dim = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * dim, config.num_key_value_heads * dim
        self.q_proj = nn.Linear(size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(size, keys, bias=config.qkv_bias)
        self.o_proj = Back(queries, size, bias=config.output_bias, scale=config.residual_scale)
        self.head_norms, self.whole_norms = config.head_norms, config.family.whole_norms
        if self.head_norms or self.whole_norms:
            self.q_norm = Norm(config, queries if self.whole_norms else dim)
            self.k_norm = Norm(config, keys if self.whole_norms else dim)
        self.head_dim, self.local = dim, config.is_local(layer)
        self.frequencies, amplitude = rotary_frequencies(config, layer)
        self.attributes = config.attention_attributes(layer, amplitude)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x [..., hidden_size] as the operator takes them."""
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.whole_norms:
            query, key = self.q_norm(query), self.k_norm(key)
        return query, key, value

    def gains(self) -> tuple[Tensor, Tensor]:
        """Of the norms of query and key heads, [head_dim] each; ones where there are none."""
        if self.head_norms:
            return exact(self.q_norm.gain), exact(self.k_norm.gain)
        # The operator takes gains in any case; it reads them only where there are norms.
        weight = self.o_proj.weight
        ones = torch.ones(self.head_dim, device=weight.device, dtype=exact(weight).dtype)
        return ones, ones

    def rotary(self, device: torch.device) -> Tensor:
        """Frequencies [rotary_half] in radians per position, float32."""
        return torch.tensor(self.frequencies, dtype=torch.float32, device=device)

    def forward(
        self, x: Tensor, position: Tensor, state: tuple[Tensor, ...], cuts: Cuts
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend from x [batch, time, hidden_size].

        Args:
            x: the normed token stream.
            position: [1] int64.
            state: key and value ring, and their scales where they are int8.
            cuts: see ``Cuts``.

        Returns:
            [batch, time, hidden_size] and the rings.
        """
        vectors = (self.rotary(x.device), *self.gains())

        def run(
            streams: Sequence[Tensor], at: Tensor, rings: tuple[Tensor, ...]
        ) -> tuple[Tensor, ...]:
            attend = attention_operator(self.attributes, rings)
            present: tuple[Tensor, ...] = attend(
                streams[0], at, *vectors, *rings, **self.attributes
            )
            return present

        qkv = torch.cat(self.project(x), dim=-1)
        output, rings = each_piece(cuts, position, [qkv], run, state)
        mixed: Tensor = self.o_proj(output)
        return mixed, rings
