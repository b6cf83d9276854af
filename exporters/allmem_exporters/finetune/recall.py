"""Runs the memories of one layer over a whole sequence and records what they write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.norms import exact
from allmem_exporters.model.operators.memory import memory_step


@dataclass(frozen=True, slots=True)
class Writing:
    """How a memory wrote on one sequence; for reports, without gradients.

    Attributes:
        strength: mean learning rate of a token.
        growth: largest row of the read weights relative to the same row at first.
        clipped: fraction of the chunks' gradients that the bound cut.
    """

    strength: float
    growth: float
    clipped: float


def blank_state(memory: Memory, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """A memory's state before the first token, in float32."""
    heads, hidden, dim = memory.fw_gate.shape
    matrices = [torch.zeros(batch, heads, 3, hidden, dim, device=device) for _ in range(3)]
    taps = memory.q_conv.weight.shape[1]
    return (
        *matrices,
        torch.zeros(batch, heads, device=device),
        torch.zeros(batch, 3, taps - 1, heads * dim, device=device),
    )


def recall(memory: Memory, x: Tensor, chunk: int, *, save_memory: bool = True) -> Tensor:
    """Read and write along a sequence that begins at position 0.

    Args:
        memory: of the layer; its own chunk is not looked at.
        x: [batch, time, hidden_size], the normed token stream.
        chunk: tokens between two commits.
        save_memory: keep only the state between chunks for the way back, and compute the inside
            of each chunk again.

    Returns:
        alpha (.) memory, [batch, time, hidden_size] in float32.
    """
    output, _ = _run(memory, x, chunk, save_memory)
    return memory.alpha * linear(memory.o_proj, output.to(x.dtype)).float()


def observe(memory: Memory, x: Tensor, chunk: int) -> Writing:
    """How the memory writes on x; see ``recall``."""
    with torch.no_grad():
        _, states = _run(memory, x, chunk, save_memory=False)
        _, _, initial, norms = memory.constants()
        rate = functional.softplus(linear(memory.lr_proj, x).float()).mean()
        hidden = initial.shape[2]
        growth, clipped, seen = 1.0, 0, 0
        bound = memory.config.theta_rel * torch.stack(
            [
                part.norm(dim=-1)
                for part in norms.split([hidden, hidden, norms.shape[1] - 2 * hidden], 1)
            ],
            dim=-1,
        )
        momentum = torch.zeros_like(initial)[None]
        for weights, after, keep in states:
            rows = torch.cat(
                [
                    weights[:, :, 0].norm(dim=-1),
                    weights[:, :, 1].norm(dim=-1),
                    weights[:, :, 2].norm(dim=-2),
                ],
                -1,
            )
            growth = max(growth, float((rows / norms).max()))
            written = (keep[..., None, None, None] * momentum - after).flatten(-2).norm(dim=-1)
            if memory.config.theta_rel > 0:
                clipped += int((written > 0.999 * bound).sum())
                seen += written.numel()
            momentum = after
    return Writing(float(rate), growth, clipped / max(seen, 1))


def _run(
    memory: Memory, x: Tensor, chunk: int, save_memory: bool
) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """Output [batch, time, width] and after each commit weights, momentum and what was kept."""
    qkv = torch.cat([linear(p, x) for p in (memory.q_proj, memory.k_proj, memory.v_proj)], -1)
    control = _control(memory, x)
    constants = memory.constants()
    attributes: dict[str, Any] = {**memory.attributes, "chunk": chunk}
    state = blank_state(memory, x.shape[0], x.device)
    outputs, written = [], []
    for start in range(0, x.shape[1], chunk):
        inputs = (qkv[:, start : start + chunk], control[:, start : start + chunk],
                  torch.full((1,), start, device=x.device), *constants, *state)  # fmt: skip
        if save_memory and torch.is_grad_enabled():
            output, *after = checkpoint(
                memory_step, *inputs, use_reentrant=False, preserve_rng_state=False, **attributes
            )
        else:
            output, *after = memory_step(*inputs, **attributes)
        if not torch.is_grad_enabled() and start + chunk <= x.shape[1]:
            logits = control[:, start : start + chunk].unflatten(-1, (5, memory.heads))[:, :, 3]
            written.append((after[0], after[1], logits.float().sigmoid().mean(1)))
        state = tuple(after)
        outputs.append(output)
    return torch.cat(outputs, dim=1), written


def _control(memory: Memory, x: Tensor) -> Tensor:
    """As ``Memory.control``, in float32 whatever x is: small rates vanish in 16 bits."""
    rates = linear(memory.lr_proj, x, wide=True).repeat(1, 1, 3 * memory.heads // memory.rates)
    momentum = linear(memory.mom_proj, x, wide=True)
    ungated = memory.config.out_gate == "none"
    gate = torch.zeros_like(momentum) if ungated else linear(memory.gate_proj, x, wide=True)
    return torch.cat([rates, momentum, gate], dim=-1)


def linear(layer: torch.nn.Linear, x: Tensor, *, wide: bool = False) -> Tensor:
    """A float32 layer applied in the type of x, or, if ``wide``, in float32."""
    if wide:
        x = exact(x)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return functional.linear(x, layer.weight.to(x.dtype), bias)
