"""Cohere 2 (Command R7B): Cohere with local layers, and no others turn."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    kinds = enumerate(config.layer_types)
    unrotated = [layer for layer, kind in kinds if kind != "sliding_attention"]
    return {"logits_scale": config.logit_scale, "unrotated_layers": unrotated or None}


FAMILY = Family(
    "cohere2",
    "Cohere 2",
    norms="parallel",
    centered=True,
    pairs=True,
    fields=frozenset(
        {
            "logit_scale",
            "sliding_window",
            "sliding_window_pattern",  # of which transformers makes layer_types
            "_sliding_window_pattern",
            "cache_implementation",  # transformers' own cache
        }
    ),
    options=_options,
    named={"rms_norm_eps": "layer_norm_eps"},
)
