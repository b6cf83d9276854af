"""TTTMemory for PyTorch: plain tensor arithmetic, and its registration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from allmem_exporters.model.operators.registration import differentiable
from allmem_ops.schema import TTT_MEMORY


def _convolved(raw: Tensor, tail: Tensor, taps: Tensor, activation: str) -> Tensor:
    """Causal depthwise convolution of raw [batch, 3, time, width], then the activation."""
    time, kernel = raw.shape[2], taps.shape[2]
    rows = torch.cat([tail.to(raw.dtype), raw], dim=2)
    mixed = sum(rows[:, :, k : k + time] * taps[None, :, None, :, k] for k in range(kernel))
    assert isinstance(mixed, Tensor)
    if activation == "silu":
        return functional.silu(mixed)
    if activation == "silu_qk":
        return torch.cat([functional.silu(mixed[:, :2]), mixed[:, 2:]], dim=1)
    return mixed


def _unit(x: Tensor, epsilon: float) -> Tensor:
    """L2 norm over the last axis; the square root never sees 0, where it has no derivative."""
    square = x.square().sum(-1, keepdim=True)
    return x * torch.rsqrt(square.clamp(min=epsilon * epsilon))


def _rms(x: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def _normalized(weights: Tensor, norms: Tensor, epsilon: float) -> Tensor:
    """Rows of weights [batch, heads, 3, hidden, dim] with the norms [heads, 2 hidden + dim]."""
    hidden = weights.shape[3]
    floor = epsilon * epsilon
    gate, up, down = weights.unbind(2)
    rows_gate = norms[:, :hidden, None]
    rows_up = norms[:, hidden : 2 * hidden, None]
    columns = norms[:, None, 2 * hidden :]
    return torch.stack(
        [
            gate * rows_gate * gate.square().sum(-1, keepdim=True).clamp(min=floor).rsqrt(),
            up * rows_up * up.square().sum(-1, keepdim=True).clamp(min=floor).rsqrt(),
            down * columns * down.square().sum(-2, keepdim=True).clamp(min=floor).rsqrt(),
        ],
        dim=2,
    )


def _clipped(gradient: Tensor, norms: Tensor, clip: float) -> Tensor:
    """Bound each matrix of gradient [batch, heads, 3, hidden, dim] by clip * |initial|."""
    if clip == 0.0:
        return gradient
    hidden = gradient.shape[3]
    parts = (norms[:, :hidden], norms[:, hidden : 2 * hidden], norms[:, 2 * hidden :])
    bound = clip * torch.stack([part.square().sum(-1).sqrt() for part in parts], dim=-1)
    length = gradient.square().sum((-1, -2)).clamp(min=1e-30).sqrt()
    return gradient * (bound / length).clamp(max=1.0)[..., None, None]


def memory_step(
    qkv: Tensor,
    control: Tensor,
    position: Tensor,
    conv_weight: Tensor,
    norm_gain: Tensor,
    initial_weights: Tensor,
    initial_norms: Tensor,
    past_weights: Tensor,
    past_momentum: Tensor,
    past_gradient: Tensor,
    past_momentum_sum: Tensor,
    past_conv_tail: Tensor,
    *,
    chunk: int,
    inner_loss: str = "neg_dot",
    norm_schedule: str = "read_norm_write",
    grad_at: str = "normalized",
    clip: float = 0.1,
    lr_reduce: str = "sum",
    residual: int = 1,
    conv_activation: str = "silu",
    value_norm: str = "none",
    out_norm: int = 1,
    out_gate: str = "sigmoid",
    epsilon: float = 1e-6,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One piece through the memory: (output, five states).

    Arguments, shapes and meaning are those of `allmem_ops.reference`, with tensors for arrays and
    ``position`` as a tensor [1] int64.

    Raises:
        ValueError: the piece crosses a chunk boundary (checked where position is on the CPU).
    """
    batch, time, _ = qkv.shape
    _, heads, _, hidden, dim = past_weights.shape
    width = heads * dim
    if position.device.type == "cpu" and int(position) % chunk + time > chunk:
        raise ValueError(
            f"TTTMemory: a piece of {time} tokens at position {int(position)} crosses the "
            f"boundary of its chunk of {chunk}; cut it there"
        )
    inner = past_weights.dtype
    raw = qkv.to(inner).reshape(batch, time, 3, width).transpose(1, 2)
    mixed = _convolved(raw, past_conv_tail, conv_weight, conv_activation)
    tail_rows = torch.cat([past_conv_tail.to(inner), raw], dim=2)[:, :, time:]
    query, key, value = (
        mixed.reshape(batch, 3, time, heads, dim).transpose(2, 3).unbind(1)
    )  # [batch, heads, time, dim]
    gains = norm_gain[:, None, :, None, :]
    query, key = _unit(query * gains[0], epsilon), _unit(key * gains[1], epsilon)
    if value_norm == "rms":
        value = _rms(value, epsilon)
    elif value_norm == "l2":
        value = _unit(value, epsilon)
    logits = control.to(inner).reshape(batch, time, 5, heads).permute(2, 0, 3, 1)
    rate = functional.softplus(logits[:3])[..., None]  # [3, batch, heads, time, 1]

    weights = torch.where(position == 0, initial_weights, past_weights)
    normal = _normalized(weights, initial_norms, epsilon)
    flags = TTT_MEMORY.decided(norm_schedule=norm_schedule, grad_at=grad_at)
    read_at = normal if flags["read_normal"] else weights
    write_at = normal if flags["gradient_normal"] else weights
    commit_to = normal if flags["commit_normal"] else weights

    gate, up, down = read_at.unbind(2)
    read = (functional.silu(query @ gate.mT) * (query @ up.mT)) @ down
    if residual:
        read = read + query
    if out_norm:
        read = _rms(read, epsilon) * gains[2]
    if out_gate == "sigmoid":
        read = read * logits[4].sigmoid()[..., None]
    elif out_gate == "silu":
        read = read * functional.silu(logits[4])[..., None]
    output = read.transpose(1, 2).reshape(batch, time, width).to(qkv.dtype)

    gate, up, down = write_at.unbind(2)
    gate_in, up_in = key @ gate.mT, key @ up.mT  # [batch, heads, time, hidden]
    s = gate_in.sigmoid()
    z = gate_in * s
    active = z * up_in
    d_out = -value
    if inner_loss == "l2":
        d_out = active @ down - value + (key if residual else 0.0)
    d_active = d_out @ down.mT
    d_gate = d_active * up_in * s * (1.0 + gate_in * (1.0 - s))
    gradient = past_gradient + torch.stack(
        [
            (rate[0] * d_gate).mT @ key,
            (rate[1] * d_active * z).mT @ key,
            active.mT @ (rate[2] * d_out),
        ],
        dim=2,
    )
    momentum_sum = past_momentum_sum + logits[3].sigmoid().sum(-1)

    total = gradient / chunk if lr_reduce == "mean" else gradient
    keep = (momentum_sum / chunk)[..., None, None, None]
    new_momentum = keep * past_momentum - _clipped(total, initial_norms, clip)
    full = ((position + time) % chunk == 0) & (time > 0)
    return (
        output,
        torch.where(full, commit_to + new_momentum, weights),
        torch.where(full, new_momentum, past_momentum),
        torch.where(full, 0.0, gradient),
        torch.where(full, 0.0, momentum_sum),
        tail_rows.to(past_conv_tail.dtype).clone(),
    )


ttt_memory = torch.library.custom_op("allmem::ttt_memory", memory_step, mutates_args=())
"""`memory_step` as one opaque, differentiable operator of PyTorch."""


@ttt_memory.register_fake
def _(qkv: Tensor, *tensors: Tensor, **_: Any) -> tuple[Tensor, ...]:
    batch, time, packed = qkv.shape
    output = qkv.new_empty(batch, time, packed // 3)
    return output, *(torch.empty_like(state) for state in tensors[-5:])


differentiable(ttt_memory, memory_step)
