"""Attention over a whole sequence for training: full for the teacher, windowed for the student.

The same frozen projections serve both. Nothing of the size length x length is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from allmem_exporters.model.layers import WindowAttention
from allmem_exporters.model.norms import exact
from allmem_exporters.model.operators.attention import head_norm, rotate

QUERY_BLOCK = 128
"""Queries whose scores are held at a time; few, because each block looks at window + block keys."""


class Heads(NamedTuple):
    """What a layer's attention works on; each [batch, heads, time, head_dim].

    ``query`` is not yet rotated, because sinks are seen from another position than the rest.
    """

    query: Tensor
    key: Tensor
    value: Tensor


class Rotary:
    """The rotary embedding of one layer.

    Args:
        attention: of the layer.
        device: of what it turns.
    """

    def __init__(self, attention: WindowAttention, device: torch.device) -> None:
        self._frequencies = attention.rotary(device)
        self._amplitude = float(attention.attributes["rope_amplitude"])

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate x [batch, heads, time, head_dim] at positions [time]."""
        turned = rotate(x.transpose(1, 2), positions, self._frequencies, self._amplitude)
        return turned.transpose(1, 2)


def project(attention: WindowAttention, x: Tensor) -> Heads:
    """Queries, rotated keys and values of x [batch, time, hidden_size]."""
    batch, time, _ = x.shape
    query, key, value = (
        flat.reshape(batch, time, -1, attention.head_dim) for flat in attention.project(x)
    )
    if attention.head_norms:
        epsilon = float(attention.attributes["norm_epsilon"])
        for_queries, for_keys = attention.gains()
        query = head_norm(exact(query), for_queries, epsilon).to(x.dtype)
        key = head_norm(exact(key), for_keys, epsilon).to(x.dtype)
    positions = torch.arange(time, device=x.device)
    query, key, value = (h.transpose(1, 2) for h in (query, key, value))
    return Heads(query, Rotary(attention, x.device)(key, positions), value)


def full_attention(attention: WindowAttention, heads: Heads) -> Tensor:
    """What the pretrained model does: [batch, time, hidden_size]."""
    time, device = heads.query.shape[2], heads.query.device
    if attention.local or attention.attributes.get("softcap"):
        return windowed_attention(attention, heads, time, 0)
    mixed = functional.scaled_dot_product_attention(
        Rotary(attention, device)(heads.query, torch.arange(time, device=device)),
        heads.key,
        heads.value,
        is_causal=True,
        scale=float(attention.attributes["scale"]),
        enable_gqa=True,
    )
    return _back(attention, mixed)


def windowed_attention(attention: WindowAttention, heads: Heads, window: int, sinks: int) -> Tensor:
    """What SlidingWindowAttention does, over a whole sequence: [batch, time, hidden_size].

    With gradients the scores of a block are made again on the way back: kept, they would be
    heads x time x (window + block) numbers, three times over.

    Args:
        attention: of the layer; its own window and sinks count if it is local.
        heads: of the sequence, which begins at position 0.
        window: tokens seen, the token itself included.
        sinks: first tokens seen by all.
    """
    if attention.local:
        window, sinks = attention.attributes["window"], 0
    return _back(attention, _windowed(attention, heads, window, sinks))


def attention_by_head(
    attention: WindowAttention, heads: Heads, windows: Sequence[int], sinks: int
) -> Tensor:
    """``windowed_attention`` with a window for each key/value head; what is not seen costs nothing.

    Args:
        attention: of the layer; its own window and sinks are not looked at.
        heads: of the sequence, which begins at position 0.
        windows: of each key/value head.
        sinks: first tokens seen by all.
    """
    group = heads.query.shape[1] // heads.key.shape[1]
    mixed = torch.empty_like(heads.query)
    for window in set(windows):
        own = torch.tensor([n for n, one in enumerate(windows) if one == window])
        queries = (own[:, None] * group + torch.arange(group)).flatten()
        some = Heads(heads.query[:, queries], heads.key[:, own], heads.value[:, own])
        mixed[:, queries] = _windowed(attention, some, window, sinks)
    return _back(attention, mixed)


def _windowed(attention: WindowAttention, heads: Heads, window: int, sinks: int) -> Tensor:
    """[batch, heads, time, head_dim]."""
    time, device = heads.query.shape[2], heads.query.device
    positions, rotary = torch.arange(time, device=device), Rotary(attention, device)
    turned = rotary(heads.query, positions)
    clamped = attention.attributes["sink_rope"] == "clamped"
    at_sinks = positions.clamp(max=sinks + window - 1) if clamped else positions
    from_sinks = rotary(heads.query, at_sinks) if sinks else turned
    blocks = []
    for start in range(0, time, QUERY_BLOCK):
        arguments = (attention, heads, turned, from_sinks, start, window, sinks)
        if torch.is_grad_enabled():
            mixed = checkpoint(_block, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            mixed = _block(*arguments)
        blocks.append(mixed)
    return torch.cat(blocks, dim=2)


def scored(attention: WindowAttention, products: Tensor) -> Tensor:
    """Products of queries and keys to what the softmax takes, in float32."""
    scores = products.float() * float(attention.attributes["scale"])
    cap = float(attention.attributes.get("softcap", 0.0))
    return cap * (scores / cap).tanh() if cap else scores


def _block(
    attention: WindowAttention,
    heads: Heads,
    turned: Tensor,
    from_sinks: Tensor,
    start: int,
    window: int,
    sinks: int,
) -> Tensor:
    """The queries of one block: [batch, heads, block, head_dim]."""
    time, device = turned.shape[2], turned.device
    end = min(start + QUERY_BLOCK, time)
    first = max(0, start - window + 1)
    apart = min(sinks, first)  # sinks that lie before the block's keys
    now = torch.arange(start, end, device=device)[:, None]
    columns = torch.cat(
        [torch.arange(apart, device=device), torch.arange(first, end, device=device)]
    )
    keys = torch.cat([heads.key[:, :, :apart], heads.key[:, :, first:end]], dim=2)
    values = torch.cat([heads.value[:, :, :apart], heads.value[:, :, first:end]], dim=2)
    is_sink = columns < sinks
    count = apart + max(0, min(sinks, end) - first)  # they come first
    scores = torch.cat(
        [
            _scores(from_sinks[:, :, start:end], keys[:, :, :count]),
            _scores(turned[:, :, start:end], keys[:, :, count:]),
        ],
        dim=-1,
    ).unflatten(2, (-1, end - start))  # [batch, kv_heads, group, queries, keys]
    hidden = (columns > now) | ((now - columns >= window) & ~is_sink)
    scores = scored(attention, scores).masked_fill(hidden, float("-inf"))
    weights = scores.softmax(-1).to(values.dtype).flatten(2, 3)
    mixed: Tensor = (weights @ values).unflatten(2, (-1, end - start))
    return mixed.flatten(1, 2)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """[batch, kv_heads, group x queries, keys]: a key head serves its group in one product."""
    grouped: Tensor = query.unflatten(1, (key.shape[1], -1))
    return grouped.flatten(2, 3) @ key.mT


def _back(attention: WindowAttention, mixed: Tensor) -> Tensor:
    output: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return output
