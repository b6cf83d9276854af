"""SlidingWindowAttention for PyTorch: plain tensor arithmetic, and its registration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from allmem_exporters.model.operators.registration import differentiable
from allmem_ops.contract import Value


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


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of int8 and their scales, as `allmem_ops.reference.quantize` makes them."""
    exact = x.detach()
    high = torch.where(exact.isfinite().all(-1), exact.abs().amax(-1), torch.nan)
    scale = (high / 127).float()
    usable = scale > 0
    divisor = torch.where(usable, scale, 1.0).to(x.dtype)[..., None]
    whole = (torch.where(usable[..., None], exact, 0.0) / divisor).round()
    return whole.clamp(-127, 127).to(torch.int8), scale


def _restored(rows: Tensor, scales: Tensor, new: Tensor) -> Tensor:
    """Int8 ``rows`` [..., columns, dim] as numbers; the last ones stand for ``new``.

    The gradient goes to ``new`` as if it had not been rounded.
    """
    numbers = rows.to(new.dtype) * scales.to(new.dtype)[..., None]
    past, now = numbers.split([rows.shape[-2] - new.shape[-2], new.shape[-2]], dim=-2)
    return torch.cat([past, now + (new - new.detach())], dim=-2)


def _step(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_scale: Tensor | None,
    sink_logits: Tensor | None,
    *,
    window: int,
    sinks: int,
    scale: float,
    sink_rope: str,
    softcap: float,
    rope_amplitude: float,
    norm_epsilon: float,
) -> tuple[Tensor, ...]:
    """Both forms of the operator; ``past_scale`` is there where the rings are int8."""
    batch, time, packed = qkv.shape
    _, kv_heads, slots, head_dim = past_key.shape
    query_heads = packed // head_dim - 2 * kv_heads
    group = query_heads // kv_heads
    heads = qkv.reshape(batch, time, query_heads + 2 * kv_heads, head_dim)
    query, key, value = heads.split([query_heads, kv_heads, kv_heads], dim=2)
    query = head_norm(query, query_norm, norm_epsilon)
    key = head_norm(key, key_norm, norm_epsilon)

    now = position + torch.arange(time, device=qkv.device)  # [time]
    at_sinks = now.clamp(max=sinks + window - 1)
    # Rounded to the cache's type before use: the result must not depend on where text was cut.
    new_key = rotate(key, now, inverse_frequencies, rope_amplitude).transpose(1, 2)
    new_value = value.transpose(1, 2)
    kept: list[Tensor] = []  # rings and piece, [batch, kv_heads, columns, dim] and as it is stored
    if past_scale is None:
        kept = [
            torch.cat([past_key, new_key.to(past_key.dtype)], dim=2),
            torch.cat([past_value, new_value.to(past_value.dtype)], dim=2),
        ]
        keys, values = (rows.to(qkv.dtype) for rows in kept)
    else:
        (new_keys, key_scale), (new_values, value_scale) = quantize(new_key), quantize(new_value)
        scales = torch.cat([past_scale, torch.stack([key_scale, value_scale], dim=2)], dim=3)
        kept = [
            torch.cat([past_key, new_keys], dim=2),
            torch.cat([past_value, new_values], dim=2),
            scales.transpose(2, 3),
        ]
        keys = _restored(kept[0], scales[:, :, 0], new_key)
        values = _restored(kept[1], scales[:, :, 1], new_value)

    before = slot_positions(position, window, sinks)
    # Of rings that are not full yet, the slots behind the last token have nothing.
    used = min(int(position), slots) if position.device.type == "cpu" else slots
    if used < slots:
        keys, values = (torch.cat([x[:, :, :used], x[:, :, slots:]], dim=2) for x in (keys, values))
    columns = torch.cat([before[:used], now])
    visible = (columns >= 0) & (columns <= now[:, None])
    visible &= (now[:, None] - columns < window) | (columns < sinks)  # [time, columns]

    def logits(positions: Tensor, keys: Tensor) -> Tensor:
        turned = rotate(query, positions, inverse_frequencies, rope_amplitude)
        grouped = turned.reshape(batch, time, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
        return grouped @ keys[:, :, None].transpose(-1, -2)

    # The first columns are those of the sinks. On other devices, which are not asked for the
    # position, sinks within the piece are left out: it is no longer than the window, so they are
    # near.
    far = min(sinks, used + time) if sink_rope == "clamped" else 0
    scores = logits(now, keys[:, :, far:])
    if far:
        scores = torch.cat([logits(at_sinks, keys[:, :, :far]), scores], dim=-1)
    scores = scale * scores
    if softcap > 0.0:
        scores = softcap * (scores / softcap).tanh()
    scores = scores.masked_fill(~visible, float("-inf"))
    if sink_logits is None:
        weights = scores.softmax(-1)
    else:
        sinks_at = sink_logits.to(scores.dtype).reshape(kv_heads, group, 1, 1)
        joined = torch.cat([scores, sinks_at.expand(batch, -1, -1, time, 1)], dim=-1)
        weights = joined.softmax(-1)[..., :-1]
    mixed = weights @ values[:, :, None]
    output = mixed.permute(0, 3, 1, 2, 4).reshape(batch, time, query_heads * head_dim)

    after = slot_positions(position + time, window, sinks)
    source = torch.where(
        after >= position, slots + after - position, torch.arange(slots, device=qkv.device)
    )
    present = [rows.index_select(2, source) for rows in kept]
    if past_scale is not None:
        present[2] = present[2].transpose(2, 3).contiguous()
    return output, *present


def attention_step(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    sink_logits: Tensor | None = None,
    *,
    window: int,
    sinks: int,
    scale: float,
    sink_rope: str = "clamped",
    softcap: float = 0.0,
    rope_amplitude: float = 1.0,
    norm_epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention over sinks, window and piece: (output, present_key, present_value).

    Arguments, shapes and meaning are those of `allmem_ops.reference`, with tensors for arrays and
    ``position`` as a tensor [1] int64.
    """
    output, key, value = _step(
        qkv, position, inverse_frequencies, query_norm, key_norm, past_key, past_value, None,
        sink_logits, window=window, sinks=sinks, scale=scale, sink_rope=sink_rope, softcap=softcap,
        rope_amplitude=rope_amplitude, norm_epsilon=norm_epsilon,
    )  # fmt: skip
    return output, key, value


def quantized_attention_step(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_scale: Tensor,
    sink_logits: Tensor | None = None,
    *,
    window: int,
    sinks: int,
    scale: float,
    sink_rope: str = "clamped",
    softcap: float = 0.0,
    rope_amplitude: float = 1.0,
    norm_epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same with int8 rings: (output, present_key, present_value, present_scale)."""
    output, key, value, scales = _step(
        qkv, position, inverse_frequencies, query_norm, key_norm, past_key, past_value, past_scale,
        sink_logits, window=window, sinks=sinks, scale=scale, sink_rope=sink_rope, softcap=softcap,
        rope_amplitude=rope_amplitude, norm_epsilon=norm_epsilon,
    )  # fmt: skip
    return output, key, value, scales


def attention_by_head_step(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    sink_logits: Tensor | None = None,
    *,
    window: Sequence[int],
    sinks: int,
    scale: float,
    sink_rope: str = "clamped",
    softcap: float = 0.0,
    rope_amplitude: float = 1.0,
    norm_epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with a window for every key/value head; rings [batch, rows, head_dim]."""
    output, key, value = _each_head(
        qkv, position, (inverse_frequencies, query_norm, key_norm), (past_key, past_value),
        sink_logits, window,
        sinks=sinks, scale=scale, sink_rope=sink_rope, softcap=softcap,
        rope_amplitude=rope_amplitude, norm_epsilon=norm_epsilon,
    )  # fmt: skip
    return output, key, value


def quantized_attention_by_head_step(
    qkv: Tensor,
    position: Tensor,
    inverse_frequencies: Tensor,
    query_norm: Tensor,
    key_norm: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_scale: Tensor,
    sink_logits: Tensor | None = None,
    *,
    window: Sequence[int],
    sinks: int,
    scale: float,
    sink_rope: str = "clamped",
    softcap: float = 0.0,
    rope_amplitude: float = 1.0,
    norm_epsilon: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same with int8 rings; scales [batch, 2 * rows]."""
    output, key, value, scales = _each_head(
        qkv, position, (inverse_frequencies, query_norm, key_norm),
        (past_key, past_value, past_scale), sink_logits, window,
        sinks=sinks, scale=scale, sink_rope=sink_rope, softcap=softcap,
        rope_amplitude=rope_amplitude, norm_epsilon=norm_epsilon,
    )  # fmt: skip
    return output, key, value, scales


def _each_head(
    qkv: Tensor,
    position: Tensor,
    vectors: tuple[Tensor, ...],
    past: tuple[Tensor, ...],
    sink_logits: Tensor | None,
    window: Sequence[int],
    *,
    sinks: int,
    **attributes: Any,
) -> tuple[Tensor, ...]:
    """Every key/value head as if it were alone, and the results side by side."""
    batch, time, packed = qkv.shape
    head_dim, kv_heads = past[0].shape[2], len(window)
    group = packed // head_dim // kv_heads - 2
    heads = qkv.reshape(batch, time, (group + 2) * kv_heads, head_dim)
    query, key, value = heads.split([group * kv_heads, kv_heads, kv_heads], dim=2)
    slots = [sinks + own for own in window]
    rings = [part.split(slots, dim=1) for part in past[:2]]
    scales = past[2].split([2 * count for count in slots], dim=1) if len(past) == 3 else None
    results = []
    for head, own in enumerate(window):
        mine = [
            query[:, :, head * group : (head + 1) * group],
            key[:, :, head : head + 1],
            value[:, :, head : head + 1],
        ]
        inverse_frequencies, query_norm, key_norm = vectors
        scale = None if scales is None else scales[head].reshape(batch, 1, 2, slots[head])
        logits = None if sink_logits is None else sink_logits[head * group : (head + 1) * group]
        results.append(
            _step(
                torch.cat(mine, dim=2).flatten(2), position,
                inverse_frequencies, query_norm, key_norm,
                rings[0][head][:, None], rings[1][head][:, None], scale, logits,
                window=own, sinks=sinks, **attributes,
            )
        )  # fmt: skip
    output, *present = zip(*results, strict=True)
    joined = [torch.cat([ring[:, 0] for ring in part], dim=1) for part in present[:2]]
    joined += [torch.cat([part.flatten(1) for part in parts], dim=1) for parts in present[2:]]
    return torch.cat(output, dim=2), *joined


sliding_window_attention = torch.library.custom_op(
    "allmem::sliding_window_attention", attention_step, mutates_args=()
)
"""`attention_step` as one opaque, differentiable operator of PyTorch."""


quantized_attention = torch.library.custom_op(
    "allmem::quantized_attention", quantized_attention_step, mutates_args=()
)
"""The same of `quantized_attention_step`."""


attention_by_head = torch.library.custom_op(
    "allmem::attention_by_head", attention_by_head_step, mutates_args=()
)
"""The same of `attention_by_head_step`."""


quantized_attention_by_head = torch.library.custom_op(
    "allmem::quantized_attention_by_head", quantized_attention_by_head_step, mutates_args=()
)
"""The same of `quantized_attention_by_head_step`."""


def attention_operator(
    attributes: Mapping[str, Value], rings: Sequence[Tensor]
) -> Callable[..., tuple[Tensor, ...]]:
    """The form of the operator for these attributes and this state.

    Args:
        attributes: of the node; windows of single heads are a tuple.
        rings: keys and values, and their scales where they are int8.
    """
    if isinstance(attributes["window"], tuple):
        return attention_by_head if len(rings) == 2 else quantized_attention_by_head
    return sliding_window_attention if len(rings) == 2 else quantized_attention


def _fake(qkv: Tensor, *tensors: Tensor | None, **attributes: Any) -> tuple[Tensor, ...]:
    past = [one for one in tensors[4:] if one is not None and one.dim() > 1]  # no sink logits
    batch, time, packed = qkv.shape
    own = attributes["window"]
    kv_heads = past[0].shape[1] if isinstance(own, int) else len(own)
    width = packed - 2 * kv_heads * past[0].shape[-1]
    return qkv.new_empty(batch, time, width), *(torch.empty_like(ring) for ring in past)


for operator, step in (
    (sliding_window_attention, attention_step),
    (quantized_attention, quantized_attention_step),
    (attention_by_head, attention_by_head_step),
    (quantized_attention_by_head, quantized_attention_by_head_step),
):
    operator.register_fake(_fake)
    differentiable(operator, step)
