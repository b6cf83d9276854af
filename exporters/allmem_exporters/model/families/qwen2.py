"""Qwen2 and Qwen2.5: biases on queries, keys and values."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family(
    "qwen2",
    "Qwen2",
    input_bias=True,
    # Of which transformers makes layer_types; layers with windows are refused for all families.
    fields=frozenset({"layer_types", "use_sliding_window", "sliding_window", "max_window_layers"}),
)
