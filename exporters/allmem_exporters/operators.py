"""The two operators for PyTorch: differentiable, opaque to tracing, state in and state out.

Each is a `torch.library` operator around a plain tensor function. Its gradient runs that function
again, so only inputs are kept between forward and backward: a checkpoint for every piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# --------------------------------------------------------------------------------------
# Attention


def slot_positions(end: Tensor, window: int, sinks: int) -> Tensor:
    """Position of the token that each ring slot holds once ``end`` tokens were read.

    Slot s < sinks holds token s. Slot sinks + r holds the last t < end with
    (t - sinks) % window == r, that is end - 1 - ((end - 1 - sinks - r) mod window).

    Args:
        end: [1] int64.
        window: tokens in the ring.
        sinks: tokens before it.

    Returns:
        [sinks + window] int64; negative where the slot is still empty.
    """
    first = torch.arange(sinks, device=end.device)
    ring = torch.arange(window, device=end.device)
    last = end - 1 - torch.remainder(end - 1 - sinks - ring, window)
    return torch.cat([torch.where(first < end, first, -1), torch.where(last >= sinks, last, -1)])


def rotate(x: Tensor, positions: Tensor, inverse_frequencies: Tensor, amplitude: float) -> Tensor:
    """Rotary embedding of x [batch, time, heads, head_dim] at positions [time].

    Angles are taken in float64: in float32 they drift visibly past 100k tokens.
    """
    half = inverse_frequencies.shape[0]
    angle = positions.double()[:, None, None] * inverse_frequencies.double()
    cos, sin = (amplitude * angle.cos()).to(x.dtype), (amplitude * angle.sin()).to(x.dtype)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def head_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """RMSNorm over the last axis; epsilon 0 leaves it out."""
    if epsilon == 0.0:
        return x
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * gain.to(x.dtype)


def attention_step(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    *,
    window: int,
    sinks: int,
    scale: float,
    sink_rope: str,
    rope_amplitude: float,
    norm_epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """SlidingWindowAttention with tensors; see `allmem_ops.reference` for every argument."""
    batch, time, packed = qkv.shape
    _, kv_heads, slots, head_dim = past_key.shape
    query_heads = packed // head_dim - 2 * kv_heads
    group = query_heads // kv_heads
    heads = qkv.reshape(batch, time, query_heads + 2 * kv_heads, head_dim)
    query, key, value = heads.split([query_heads, kv_heads, kv_heads], dim=2)
    query = head_norm(query, query_norm, norm_epsilon)
    key = head_norm(key, key_norm, norm_epsilon)

    now = position + torch.arange(time, device=qkv.device)  # [time]
    at_sinks = now.clamp(max=sinks + window - 1) if sink_rope == "clamped" else now
    # Rounded to the cache's type before use: the result must not depend on where text was cut.
    new_key = rotate(key, now, inverse_frequencies, rope_amplitude).to(past_key.dtype)
    new_value = value.to(past_value.dtype)
    keys = torch.cat([past_key, new_key.transpose(1, 2)], dim=2)  # [batch, kv_heads, columns, dim]
    values = torch.cat([past_value, new_value.transpose(1, 2)], dim=2)

    before = slot_positions(position, window, sinks)
    columns = torch.cat([before, now])
    visible = (columns >= 0) & (columns <= now[:, None])
    visible &= (now[:, None] - columns < window) | (columns < sinks)  # [time, columns]
    is_sink = (columns >= 0) & (columns < sinks)

    def logits(positions: Tensor) -> Tensor:
        turned = rotate(query, positions, inverse_frequencies, rope_amplitude)
        grouped = turned.reshape(batch, time, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
        return grouped @ keys.to(qkv.dtype)[:, :, None].transpose(-1, -2)

    scores = torch.where(is_sink, logits(at_sinks), logits(now)) if sinks else logits(now)
    scores = (scale * scores).masked_fill(~visible, float("-inf"))
    mixed = scores.softmax(-1) @ values.to(qkv.dtype)[:, :, None]
    output = mixed.permute(0, 3, 1, 2, 4).reshape(batch, time, query_heads * head_dim)

    after = slot_positions(position + time, window, sinks)
    source = torch.where(
        after >= position, slots + after - position, torch.arange(slots, device=qkv.device)
    )
    return output, keys.index_select(2, source), values.index_select(2, source)


# --------------------------------------------------------------------------------------
# Memory


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
    inner_loss: str,
    norm_schedule: str,
    grad_at: str,
    clip: float,
    lr_reduce: str,
    residual: int,
    conv_activation: str,
    value_norm: str,
    out_norm: int,
    out_gate: str,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """TTTMemory with tensors; see `allmem_ops.reference` for every argument."""
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
    read_at = normal if norm_schedule in ("post", "pre") else weights
    write_at = weights if norm_schedule == "none" or grad_at == "raw" else normal
    commit_to = normal if norm_schedule in ("read_norm_write", "post") else weights

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


# --------------------------------------------------------------------------------------
# Registration


def _differentiable(operator: Any, function: Callable[..., tuple[Tensor, ...]]) -> None:
    """Give ``operator`` the gradient of ``function``, taken by running it again."""

    def setup(
        ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Any
    ) -> None:
        ctx.save_for_backward(*inputs)
        ctx.attributes = keyword_only_inputs

    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            inputs = [
                tensor.detach().requires_grad_(needed)
                for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
            ]
            outputs = function(*inputs, **ctx.attributes)
        pairs = [
            (out, gradient)
            for out, gradient in zip(outputs, gradients, strict=True)
            if gradient is not None and out.requires_grad
        ]
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True
            )
            if pairs
            else [None] * len(wanted)
        )
        return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)

    torch.library.register_autograd(operator, backward, setup_context=setup)


@torch.library.custom_op("allmem::sliding_window_attention", mutates_args=())
def _attention(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    *,
    window: int,
    sinks: int,
    scale: float,
    sink_rope: str,
    rope_amplitude: float,
    norm_epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return attention_step(
        qkv, position, inverse_frequencies, query_norm, key_norm, past_key, past_value,
        window=window, sinks=sinks, scale=scale, sink_rope=sink_rope,
        rope_amplitude=rope_amplitude, norm_epsilon=norm_epsilon,
    )  # fmt: skip


@_attention.register_fake
def _(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    **attributes: Any,
) -> Any:
    batch, time, packed = qkv.shape
    width = packed - 2 * past_key.shape[1] * past_key.shape[3]
    return (
        qkv.new_empty(batch, time, width),
        torch.empty_like(past_key),
        torch.empty_like(past_value),
    )


_differentiable(_attention, attention_step)


@torch.library.custom_op("allmem::ttt_memory", mutates_args=())
def _memory(
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
    inner_loss: str,
    norm_schedule: str,
    grad_at: str,
    clip: float,
    lr_reduce: str,
    residual: int,
    conv_activation: str,
    value_norm: str,
    out_norm: int,
    out_gate: str,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return memory_step(
        qkv, control, position, conv_weight, norm_gain, initial_weights, initial_norms,
        past_weights, past_momentum, past_gradient, past_momentum_sum, past_conv_tail,
        chunk=chunk, inner_loss=inner_loss, norm_schedule=norm_schedule, grad_at=grad_at,
        clip=clip, lr_reduce=lr_reduce, residual=residual, conv_activation=conv_activation,
        value_norm=value_norm, out_norm=out_norm, out_gate=out_gate, epsilon=epsilon,
    )  # fmt: skip


@_memory.register_fake
def _(
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
    **attributes: Any,
) -> Any:
    batch, time, packed = qkv.shape
    states = (past_weights, past_momentum, past_gradient, past_momentum_sum, past_conv_tail)
    return (
        qkv.new_empty(batch, time, packed // 3),
        *(torch.empty_like(state) for state in states),
    )


_differentiable(_memory, memory_step)


def sliding_window_attention(
    *tensors: Tensor,
    window: int,
    sinks: int,
    scale: float,
    sink_rope: str = "clamped",
    rope_amplitude: float = 1.0,
    norm_epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention over sinks, window and piece: (output, present_key, present_value).

    Tensors, in this order: qkv, position [1] int64, inverse_frequencies, query_norm, key_norm,
    past_key, past_value, with the shapes of `allmem_ops.schema`. Differentiable.
    """
    return torch.ops.allmem.sliding_window_attention(
        *tensors, window=window, sinks=sinks, scale=scale, sink_rope=sink_rope,
        rope_amplitude=rope_amplitude, norm_epsilon=norm_epsilon,
    )  # fmt: skip


def ttt_memory(
    *tensors: Tensor,
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
    """One piece through the memory: (output, five states), with the shapes of the table.

    Tensors, in this order: qkv, control, position [1] int64, conv_weight, norm_gain,
    initial_weights, initial_norms, past_weights, past_momentum, past_gradient,
    past_momentum_sum, past_conv_tail. Differentiable.

    Raises:
        ValueError: the piece crosses a chunk boundary (checked where position is on the CPU).
    """
    return torch.ops.allmem.ttt_memory(
        *tensors, chunk=chunk, inner_loss=inner_loss, norm_schedule=norm_schedule,
        grad_at=grad_at, clip=clip, lr_reduce=lr_reduce, residual=residual,
        conv_activation=conv_activation, value_norm=value_norm, out_norm=out_norm,
        out_gate=out_gate, epsilon=epsilon,
    )  # fmt: skip
