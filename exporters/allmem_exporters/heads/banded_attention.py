"""Attention whose reach is divided into bands of distance, with a gate on every band of every head.

With all gates at 0 a head sees the shortest window, with gates 1 … j at 1 the window that ends with
band j. What lies between is a mixture of the heads' outputs, so that KL can be integrated along it.
Every key belongs to one band, so all windows together cost what full attention costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from allmem_exporters.finetune.attention import Heads, Rotary, scored
from allmem_exporters.model.layers import WindowAttention

QUERY_BLOCK = 256
SHORT = 4096
"""Up to so many tokens the scores of a layer are kept for the way back, not made again."""


def banded_attention(
    attention: WindowAttention,
    heads: Heads,
    windows: Sequence[int],
    sinks: int,
    gates: Tensor,
) -> Tensor:
    """What the layer adds to the stream: [batch, time, hidden_size].

    Args:
        attention: of the layer; its own window and sinks are not looked at.
        heads: of a sequence that begins at position 0.
        windows: ascending; the first is seen in any case.
        sinks: first tokens that all see, clamped as by the operator.
        gates: [kv_heads, len(windows) - 1].
    """
    time = heads.query.shape[2]
    positions = torch.arange(time, device=heads.query.device)
    rotary = Rotary(attention, heads.query.device)
    turned = rotary(heads.query, positions)
    at_sinks = [
        rotary(heads.query, positions.clamp(max=sinks + window - 1)) if sinks else turned
        for window in windows
    ]
    blocks = []
    for start in range(0, time, QUERY_BLOCK):
        arguments = (attention, heads, turned, at_sinks, start, windows, sinks, gates)
        if torch.is_grad_enabled() and time > SHORT:
            block = checkpoint(_block, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            block = _block(*arguments)
        blocks.append(block)
    mixed = torch.cat(blocks, dim=2).to(heads.query.dtype)
    output: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return output


def _block(
    attention: WindowAttention,
    heads: Heads,
    turned: Tensor,
    at_sinks: list[Tensor],
    start: int,
    windows: Sequence[int],
    sinks: int,
    gates: Tensor,
) -> Tensor:
    """The queries of one block: [batch, query heads, block, head_dim], float32."""
    end = min(start + QUERY_BLOCK, turned.shape[2])
    kv_heads = heads.key.shape[1]
    now = torch.arange(start, end, device=turned.device)[:, None]
    columns = torch.arange(end, device=turned.device)
    distance = now - columns
    visible = (distance >= 0) & (columns >= sinks)

    def scores(query: Tensor, key: Tensor) -> Tensor:
        """[batch, kv_heads, group, queries, keys]."""
        grouped = query[:, :, start:end].unflatten(1, (kv_heads, -1))
        flat: Tensor = scored(attention, grouped.flatten(2, 3).matmul(key.mT))
        found: Tensor = flat.unflatten(2, (-1, end - start))
        return found

    # A common zero of the exponents, so that sums over bands can be added.
    own = scores(turned, heads.key[:, :, :end]).masked_fill(~visible, float("-inf"))
    few = min(sinks, end)
    seen = (now >= columns[:few]) if few else None
    from_sinks = [
        scores(query, heads.key[:, :, :few]).masked_fill(~seen, float("-inf"))  # type: ignore[operator]
        for query in (at_sinks if few else [])
    ]
    high = torch.stack([part.amax(-1) for part in (own, *from_sinks)]).amax(0).detach()[..., None]
    weights = (own - high).exp()
    value = heads.value.float()
    total = weights.new_zeros(weights.shape[:-1])[..., None]
    number = weights.new_zeros(*weights.shape[:-1], value.shape[-1])
    result = before = weights.new_zeros(())
    nearest = 0
    for index, window in enumerate(windows):
        # Columns that some query of the block meets at these distances.
        part = slice(max(0, start - window + 1), max(0, end - nearest))
        if part.start < part.stop:
            apart = distance[:, part]
            band = weights[..., part] * ((apart >= nearest) & (apart < window))
            number = number + _times(band, value[:, :, part])
            total = total + band.sum(-1, keepdim=True)
        top, bottom = number, total
        if few:
            extra = (from_sinks[index] - high).exp()
            top = top + _times(extra, value[:, :, :few])
            bottom = bottom + extra.sum(-1, keepdim=True)
        output = top / bottom
        gate: Tensor | float = gates[None, :, index - 1, None, None, None] if index else 1.0
        result = result + gate * (output - before)
        before, nearest = output, window
    return result.flatten(1, 2)


def _times(weights: Tensor, value: Tensor) -> Tensor:
    """[batch, kv_heads, group, queries, head_dim]."""
    product: Tensor = weights.flatten(2, 3) @ value
    result: Tensor = product.unflatten(2, (-1, weights.shape[3]))
    return result
