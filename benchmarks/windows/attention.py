"""Attention over a whole text as rings of different heads give it: windows, types, chosen rows.

Every query finds what a ring would hold had the text come token by token. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from allmem_exporters.finetune.attention import Heads, Rotary, scored
from allmem_exporters.model.layers import WindowAttention
from benchmarks.windows.elements import Found, Rows
from benchmarks.windows.rings import Ring, given_up

QUERY_BLOCK = 256


def ring_attention(
    attention: WindowAttention,
    heads: Heads,
    rings: Sequence[Ring],
    sinks: int,
    scores: Tensor | None = None,
) -> Tensor:
    """What the layer adds to the stream: [1, time, hidden_size].

    Args:
        attention: of the layer; its own window and sinks are not looked at.
        heads: of a text that begins at position 0.
        rings: of each key/value head.
        sinks: first tokens that all see.
        scores: of the rows that may be chosen, [kv_heads, time].
    """
    turn = Rotary(attention, heads.query.device)
    queries = heads.query.unflatten(1, (len(rings), -1))
    outputs = []
    for number, ring in enumerate(rings):
        own = Rows(*(part[:, number : number + 1] for part in (heads.key, heads.value)))
        found = ring.element.found(own, sinks, turn)
        time = own.key.shape[2]
        likings = scores[number].tolist() if scores is not None and ring.slots else None
        gone = given_up(ring, sinks, likings, time).to(own.key.device)
        outputs.append(_head(attention, turn, queries[:, number], found, gone, ring.rows, sinks))
    mixed = torch.stack(outputs, dim=1).flatten(1, 2).to(heads.query.dtype)
    output: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return output


def _head(
    attention: WindowAttention,
    turn: Rotary,
    query: Tensor,
    found: Found,
    gone: Tensor,
    rows: int,
    sinks: int,
) -> Tensor:
    """Of the group of queries [1, group, time, head_dim] that share a key: the same shape."""
    time = query.shape[2]
    positions = torch.arange(time, device=query.device)
    turned = at_sinks = turn(query, positions)
    if sinks and attention.attributes["sink_rope"] == "clamped":
        at_sinks = turn(query, positions.clamp(max=sinks + rows - 1))
    blocks = []
    for start in range(0, time, QUERY_BLOCK):
        now = positions[start : start + QUERY_BLOCK]
        end, first_young = start + len(now), found.first_young(now)
        columns = sinks + (gone[sinks:end] > start).nonzero()[:, 0]
        old, young = columns[columns < first_young[-1]], columns[columns >= first_young[0]]
        first = positions[: min(sinks, end)]
        parts = [
            (at_sinks, found.young, first, first <= now[:, None]),
            (turned, found.old, old, old < first_young[:, None]),
            (turned, found.young, young, young >= first_young[:, None]),
        ]
        logits = torch.cat(
            [
                scored(attention, asked[:, :, start:end] @ given.key[:, :, columns].mT).masked_fill(
                    ~(seen & (columns <= now[:, None]) & (gone[columns] > now[:, None])), -torch.inf
                )
                for asked, given, columns, seen in parts
            ],
            dim=-1,
        )
        values = torch.cat([given.value[:, :, columns] for _, given, columns, _ in parts], dim=2)
        blocks.append(logits.softmax(-1).to(values.dtype) @ values)
    return torch.cat(blocks, dim=2)
