"""Reference of SlidingWindowAttention: one token after the other, in float64.

It knows the ring and the rotation; it does not know speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_ops.schema import ATTENTION_BY_HEAD, SLIDING_WINDOW_ATTENTION

Array = NDArray[np.floating]


def ring_slot(t: int, window: int, sinks: int) -> int:
    """Slot of token ``t``: sinks keep theirs, later tokens go round the window."""
    return t if t < sinks else sinks + (t - sinks) % window


def rotate(
    x: NDArray[np.float64], t: int, inverse_frequencies: NDArray[np.float64], amplitude: float
) -> NDArray[np.float64]:
    """Rotate ``x`` [..., head_dim] to position ``t`` (rotary embedding, halves paired).

    Coordinate j turns with coordinate j + rotary_half; coordinates past 2 * rotary_half pass.
    """
    half = inverse_frequencies.shape[0]
    angle = float(t) * inverse_frequencies
    cos, sin = amplitude * np.cos(angle), amplitude * np.sin(angle)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def head_norm(x: NDArray[np.float64], gain: Array, epsilon: float) -> NDArray[np.float64]:
    """RMSNorm over the last axis; epsilon 0 means that the model has no such norm."""
    if epsilon == 0.0:
        return x
    size: NDArray[np.float64] = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon)
    return x / size * gain.astype(np.float64)


def quantize(x: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows of int8 and a scale for each: x [..., head_dim] is about row * scale.

    The scale is the largest magnitude / 127; that of a row that is not finite is NaN, and its
    integers, like those of a row of zeros, are 0.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        high = np.where(np.isfinite(x).all(axis=-1), np.abs(x).max(axis=-1), np.nan)
        scale = (high / 127).astype(np.float32)
    usable = np.isfinite(scale) & (scale > 0)
    whole = np.rint(
        np.where(usable[..., None], x, 0) / np.where(usable, scale, 1)[..., None].astype(np.float64)
    )
    # A scale among float32's subnormals may be so coarse that quotients pass 127.
    return np.clip(whole, -127, 127).astype(np.int8), scale


def sliding_window_attention(
    qkv: Array,
    position: int,
    inverse_frequencies: Array,
    query_norm: Array,
    key_norm: Array,
    past_key: Array,
    past_value: Array,
    past_scale: Array | None = None,
    sink_logits: Array | None = None,
    *,
    window: int | tuple[int, ...],
    sinks: int,
    scale: float,
    sink_rope: str = "clamped",
    softcap: float = 0.0,
    rope_amplitude: float = 1.0,
    norm_epsilon: float = 0.0,
) -> tuple[Array, ...]:
    """Attend from each token of a piece to sinks, window and the piece's own past.

    Token t sees token i if i <= t and (t - i < window or i < sinks). Keys are kept rotated at
    their absolute position. With ``sink_rope="clamped"`` the query meets the sinks as if it stood
    at min(t, sinks + window - 1), so no distance ever exceeds what the pretrained model knows.
    Keys and values are rounded to the cache's type before anyone attends to them: the result
    does not depend on where the text was cut.

    Windows may differ by key/value head. The rings of the heads then lie one after the other, and
    each head is computed as if it were alone.

    Args:
        qkv: [batch, time, (query_heads + 2 kv_heads) head_dim].
        position: absolute index of the first token of the piece.
        inverse_frequencies: [rotary_half], radians per position.
        query_norm: [head_dim], gain of the queries' RMSNorm (read if ``norm_epsilon`` > 0).
        key_norm: [head_dim], the same for the keys.
        past_key: [batch, kv_heads, sinks + window, head_dim].
        past_value: the same shape.
        past_scale: [batch, kv_heads, 2, sinks + window], scales of the rows of keys and values;
            there if, and only if, these are int8.
        sink_logits: [query_heads], of each head a logit that joins every softmax's denominator;
            None where the model has none.
        window: tokens visible, the token itself included; with a tuple, of each key/value head.
            The caches then are [batch, rows, head_dim], where rows are those of the rings
            [sinks + window] of all heads, and the scales [batch, 2 * rows], where those of a head's
            keys and then those of its values follow those of the head before.
        sinks: first tokens that are kept permanently.
        scale: factor on the dot products.
        sink_rope: ``clamped`` or ``true``.
        softcap: c, with which products s become c tanh(s / c); 0 leaves them.
        rope_amplitude: factor on cos and sin.
        norm_epsilon: epsilon of the per-head RMSNorm; 0 leaves it out.

    Returns:
        output [batch, time, query_heads head_dim] in the type of ``qkv``, and the two caches
        (and the scales, if given), new arrays in the type of the old ones.

    Raises:
        ValueError: an attribute is outside the range of the operator's table, sizes do not
            fit each other, or scales are missing or superfluous.

    Source: arXiv 2602.13680, token mixer (sliding window with sinks); sinks: arXiv 2309.17453;
    sink logits: arXiv 2508.10925.
    """
    by_head = isinstance(window, tuple)
    attributes: dict[str, Any] = {
        "sinks": sinks,
        "scale": scale,
        "sink_rope": sink_rope,
        "softcap": softcap,
        "rope_amplitude": rope_amplitude,
        "norm_epsilon": norm_epsilon,
    }
    operator = ATTENTION_BY_HEAD if by_head else SLIDING_WINDOW_ATTENTION
    operator.attribute_values({"window": window, **attributes})
    vectors, past = (inverse_frequencies, query_norm, key_norm), (past_key, past_value, past_scale)
    if isinstance(window, tuple):
        return _each_head(qkv, position, vectors, past, sink_logits, window, attributes)
    return _one_window(qkv, position, *vectors, *past, sink_logits, window=window, **attributes)


def _each_head(
    qkv: Array,
    position: int,
    vectors: tuple[Array, Array, Array],
    past: tuple[Array, Array, Array | None],
    sink_logits: Array | None,
    window: tuple[int, ...],
    attributes: dict[str, Any],
) -> tuple[Array, ...]:
    """Every key/value head as if it were alone, and the results side by side."""
    batch, time, packed = qkv.shape
    past_key, past_value, past_scale = past
    _, rows, head_dim = past_key.shape
    kv_heads, sinks = len(window), attributes["sinks"]
    if rows != sum(sinks + own for own in window):
        raise ValueError(
            f"SlidingWindowAttention: the rings have {rows} rows, not sinks + window of every head"
        )
    group = _query_heads(packed, head_dim, kv_heads) // kv_heads
    heads = qkv.reshape(batch, time, packed // head_dim, head_dim)
    query, key, value = np.split(heads, [group * kv_heads, (group + 1) * kv_heads], axis=2)
    results, row = [], 0
    for head, own in enumerate(window):
        slots = sinks + own
        queries = query[:, :, head * group : (head + 1) * group]
        mine = np.concatenate([queries, key[:, :, [head]], value[:, :, [head]]], axis=2)
        keys, values = (ring[:, None, row : row + slots] for ring in (past_key, past_value))
        scales = None
        if past_scale is not None:
            scales = past_scale[:, 2 * row : 2 * (row + slots)].reshape(batch, 1, 2, slots)
        mine = mine.reshape(batch, time, (group + 2) * head_dim)
        logits = None if sink_logits is None else sink_logits[head * group : (head + 1) * group]
        own_past = keys, values, scales
        results.append(
            _one_window(mine, position, *vectors, *own_past, logits, window=own, **attributes)
        )
        row += slots
    output, *present = zip(*results, strict=True)
    rings = [np.concatenate([ring[:, 0] for ring in part], axis=1) for part in present[:2]]
    rings += [np.concatenate([s.reshape(batch, -1) for s in part], axis=1) for part in present[2:]]
    return np.concatenate(output, axis=2), *rings


def _query_heads(packed: int, head_dim: int, kv_heads: int) -> int:
    query_heads = packed // head_dim - 2 * kv_heads
    if packed % head_dim or query_heads < 1 or query_heads % kv_heads:
        raise ValueError(
            f"SlidingWindowAttention: qkv has {packed} columns, which are no queries, keys and "
            f"values of heads of {head_dim} with {kv_heads} key/value heads"
        )
    return query_heads


def _one_window(
    qkv: Array,
    position: int,
    inverse_frequencies: Array,
    query_norm: Array,
    key_norm: Array,
    past_key: Array,
    past_value: Array,
    past_scale: Array | None,
    sink_logits: Array | None,
    *,
    window: int,
    sinks: int,
    scale: float,
    sink_rope: str,
    softcap: float,
    rope_amplitude: float,
    norm_epsilon: float,
) -> tuple[Array, ...]:
    """All heads have one window and rings [batch, kv_heads, sinks + window, head_dim]."""
    batch, time, packed = qkv.shape
    _, kv_heads, slots, head_dim = past_key.shape
    if slots != sinks + window:
        raise ValueError(f"SlidingWindowAttention: the ring has {slots} slots, not sinks + window")
    query_heads = _query_heads(packed, head_dim, kv_heads)
    if (past_scale is not None) != (past_key.dtype == np.int8):
        raise ValueError(
            f"SlidingWindowAttention: past_key is {past_key.dtype}; past_scale goes with int8 and "
            "with nothing else"
        )
    if 2 * inverse_frequencies.shape[0] > head_dim:
        raise ValueError(
            f"SlidingWindowAttention: {inverse_frequencies.shape[0]} rotary frequencies are more "
            f"than half a head of {head_dim}"
        )
    if sink_logits is not None and sink_logits.shape != (query_heads,):
        raise ValueError(
            f"SlidingWindowAttention: sink_logits has shape {sink_logits.shape}, not one number "
            f"for each of {query_heads} query heads"
        )
    group = query_heads // kv_heads
    heads = qkv.astype(np.float64).reshape(batch, time, query_heads + 2 * kv_heads, head_dim)
    query = head_norm(heads[:, :, :query_heads], query_norm, norm_epsilon)
    key = head_norm(heads[:, :, query_heads : query_heads + kv_heads], key_norm, norm_epsilon)
    value = heads[:, :, query_heads + kv_heads :]
    frequencies = inverse_frequencies.astype(np.float64)

    ring_key, ring_value = past_key.copy(), past_value.copy()
    ring_scale = None if past_scale is None else past_scale.copy()
    output = np.zeros((batch, time, query_heads, head_dim))
    for index in range(time):
        t = position + index
        slot = ring_slot(t, window, sinks)
        # The slot's old token is t - window, which t may no longer see: write first, then attend.
        turned = rotate(key[:, index], t, frequencies, rope_amplitude)
        if ring_scale is None:
            ring_key[:, :, slot], ring_value[:, :, slot] = turned, value[:, index]
        else:
            ring_key[:, :, slot], ring_scale[:, :, 0, slot] = quantize(turned)
            ring_value[:, :, slot], ring_scale[:, :, 1, slot] = quantize(value[:, index])

        sink_t = min(t, sinks + window - 1) if sink_rope == "clamped" else t
        at_window = rotate(query[:, index], t, frequencies, rope_amplitude)
        at_sinks = rotate(query[:, index], sink_t, frequencies, rope_amplitude)
        visible_sinks = range(min(sinks, t + 1))
        visible_window = range(max(sinks, t - window + 1), t + 1)
        seen = [ring_slot(i, window, sinks) for i in (*visible_sinks, *visible_window)]
        for head in range(query_heads):
            keys = ring_key[:, head // group, seen].astype(np.float64)
            values = ring_value[:, head // group, seen].astype(np.float64)
            if ring_scale is not None:
                scales = ring_scale[:, head // group][:, :, seen].astype(np.float64)
                keys, values = keys * scales[:, 0, :, None], values * scales[:, 1, :, None]
            n = len(visible_sinks)
            logits = np.concatenate(
                [
                    np.einsum("bd,bkd->bk", at_sinks[:, head], keys[:, :n]),
                    np.einsum("bd,bkd->bk", at_window[:, head], keys[:, n:]),
                ],
                axis=1,
            )
            logits = scale * logits
            if softcap > 0.0:
                logits = softcap * np.tanh(logits / softcap)
            if sink_logits is not None:
                sink = np.full((batch, 1), sink_logits[head], np.float64)
                logits = np.concatenate([logits, sink], axis=1)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            weights = weights[:, : len(seen)]
            output[:, index, head] = np.einsum("bk,bkd->bd", weights, values)
    joined = output.reshape(batch, time, query_heads * head_dim).astype(qkv.dtype)
    if ring_scale is None:
        return joined, ring_key, ring_value
    return joined, ring_key, ring_value, ring_scale
