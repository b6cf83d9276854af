"""The attention function that transformers' modelling code calls in the place of its own.

It knows which arguments such a function may get, and refuses those that it could not follow.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "allmem"
"""Of the function, as ``attn_implementation``."""
PLACE = "allmem_attend"
"""Attribute of an attention module: what is called with (query, key, value, scale, window,
sink logits)."""

_WITHOUT_EFFECT = frozenset(
    {
        "position_ids", "position_embeddings", "cache_position", "cache", "past_key_values",
        "use_cache", "output_attentions", "output_hidden_states", "output_router_logits",
        "return_dict", "logits_to_keep", "dropout",
        "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q",
        "max_length_k", "num_items_in_batch", "deterministic",
    }
)  # fmt: skip
_MEANT = {
    "softcap": "softcaps of scores",
    "position_bias": "biases of positions",
    "head_mask": "masks of heads",
}
"""What arguments stand for that nothing here computes."""


class Unsupported(Exception):
    """A decoder has what cannot be computed here; the text says what."""


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend from query [batch, heads, time, dim] to key and value [batch, kv_heads, time, dim].

    Returns:
        [batch, time, heads, value_dim], and no weights.

    Raises:
        Unsupported: an argument says what nothing here computes.
    """
    place = getattr(module, PLACE, None)
    if place is None:
        raise Unsupported("attentions that were not found before")
    if attention_mask is not None:
        raise Unsupported("masks of its own")
    if others.pop("is_causal", None) is False or getattr(module, "is_causal", True) is False:
        raise Unsupported("attention in both directions")
    for name, given in others.items():
        if given is not None and name not in _WITHOUT_EFFECT:
            raise Unsupported(_MEANT.get(name, f"attention that takes {name}"))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return place(query, key, value, scale, sliding_window, s_aux), None


AttentionInterface.register(NAME, _attend)
