"""The memory branch of a layer: its projections and parameters around the TTTMemory operator.

It stores its fast weights as the model is described, down as [heads, dim, hidden], and packs
them as the operator wants them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.layers import Cuts, each_piece
from allmem_exporters.model.norms import exact
from allmem_exporters.model.operators import ttt_memory

MEMORY = ".allmem."
"""Stands in the name of every parameter of a memory, and in no other."""


def memory_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters of the memories of ``model`` by name."""
    return {name: p for name, p in model.named_parameters() if MEMORY in name}


class Gain(nn.Module):
    """A named weight without a computation of its own."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))


class Memory(nn.Module):
    """A neural memory with ``heads`` small SwiGLU networks that learn while reading.

    Source: arXiv 2602.13680, token mixer.
    """

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__()
        size, width, heads = config.hidden_size, config.mem_width, config.mem_heads
        dim, hidden, taps = config.mem_head_dim, config.mem_hidden, config.conv_kernel
        rates = {"three_per_head": 3 * heads, "per_head": heads, "shared": 1}[config.lr_groups]
        self.q_proj = nn.Linear(size, width, bias=False)
        self.k_proj = nn.Linear(size, width, bias=False)
        self.v_proj = nn.Linear(size, width, bias=False)
        self.o_proj = nn.Linear(width, size, bias=False)
        self.q_conv, self.k_conv, self.v_conv = (Gain(width, taps) for _ in range(3))
        if config.qk_norm == "rms_l2":
            self.q_norm, self.k_norm = Gain(heads, dim), Gain(heads, dim)
        if config.out_norm:
            self.out_norm = Gain(heads, dim)
        self.lr_proj = nn.Linear(size, rates)
        self.mom_proj = nn.Linear(size, heads)
        if config.out_gate != "none":
            self.gate_proj = nn.Linear(size, heads)
        self.alpha = nn.Parameter(torch.zeros(size))
        self.fw_gate = nn.Parameter(torch.zeros(heads, hidden, dim))
        self.fw_up = nn.Parameter(torch.zeros(heads, hidden, dim))
        self.fw_down = nn.Parameter(torch.zeros(heads, dim, hidden))
        self.config = config
        self.heads, self.dim, self.rates = heads, dim, rates
        self.attributes = config.memory_attributes()

    def control(self, x: Tensor) -> Tensor:
        """Logits [batch, time, 5 heads]: learning rates of gate, up, down; momentum; gate."""
        rates = self.lr_proj(x).repeat(1, 1, 3 * self.heads // self.rates)
        momentum = self.mom_proj(x)
        ungated = self.config.out_gate == "none"
        gate = torch.zeros_like(momentum) if ungated else self.gate_proj(x)
        return torch.cat([rates, momentum, gate], dim=-1)

    def constants(self) -> tuple[Tensor, ...]:
        """conv_weight, norm_gain, initial_weights and initial_norms as the operator takes them."""
        convolution = torch.stack([self.q_conv.weight, self.k_conv.weight, self.v_conv.weight])
        ones = torch.ones(self.heads, self.dim, device=self.alpha.device, dtype=self.alpha.dtype)
        gained = self.config.qk_norm == "rms_l2"
        gains = torch.stack(
            [
                self.q_norm.weight if gained else ones,
                self.k_norm.weight if gained else ones,
                self.out_norm.weight if self.config.out_norm else ones,
            ]
        )
        gate, up, down = exact(self.fw_gate), exact(self.fw_up), exact(self.fw_down)
        weights = torch.stack([gate, up, down.transpose(1, 2)], dim=1)
        norms = torch.cat([matrix.norm(dim=-1) for matrix in (gate, up, down)], dim=-1)
        return exact(convolution), exact(gains), weights, norms

    def forward(
        self, x: Tensor, position: Tensor, state: tuple[Tensor, ...], cuts: Cuts
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Read the memory for each token of x and learn from it.

        Args:
            x: [batch, time, hidden_size], the normed token stream.
            position: [1] int64.
            state: weights, momentum, gradient, momentum_sum, conv_tail.
            cuts: see ``Cuts``.

        Returns:
            alpha (.) memory [batch, time, hidden_size] and the state.
        """
        constants = self.constants()

        def run(
            streams: Sequence[Tensor], at: Tensor, past: tuple[Tensor, ...]
        ) -> tuple[Tensor, ...]:
            present: tuple[Tensor, ...] = ttt_memory(
                *streams, at, *constants, *past, **self.attributes
            )
            return present

        qkv = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)
        output, after = each_piece(cuts, position, [qkv, self.control(x)], run, state)
        return self.alpha * self.o_proj(output), after
