"""Qwen3: a norm for each head of queries and keys."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family(
    "qwen3",
    "Qwen3",
    head_norms=True,
    # Of which transformers makes layer_types; layers with windows are refused for all families.
    fields=frozenset({"layer_types", "use_sliding_window", "sliding_window", "max_window_layers"}),
)
