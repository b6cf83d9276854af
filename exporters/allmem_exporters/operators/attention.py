"""SlidingWindowAttention for PyTorch: plain tensor arithmetic, and its registration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from allmem_exporters.operators.registration import differentiable


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
    sink_rope: str = "clamped",
    rope_amplitude: float = 1.0,
    norm_epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention over sinks, window and piece: (output, present_key, present_value).

    Arguments, shapes and meaning are those of `allmem_ops.reference`, with tensors for arrays and
    ``position`` as a tensor [1] int64.
    """
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


sliding_window_attention = torch.library.custom_op(
    "allmem::sliding_window_attention", attention_step, mutates_args=()
)
"""`attention_step` as one opaque, differentiable operator of PyTorch."""


@sliding_window_attention.register_fake
def _(qkv: Tensor, *tensors: Tensor, **_: Any) -> tuple[Tensor, ...]:
    past_key, past_value = tensors[-2:]
    batch, time, packed = qkv.shape
    width = packed - 2 * past_key.shape[1] * past_key.shape[3]
    output = qkv.new_empty(batch, time, width)
    return output, torch.empty_like(past_key), torch.empty_like(past_value)


differentiable(sliding_window_attention, attention_step)
