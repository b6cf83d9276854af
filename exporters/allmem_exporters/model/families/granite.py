"""Granite 3: Llama with four multipliers."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    return {
        "embedding_scale": config.embedding_multiplier,
        "attention_scale": config.attention_multiplier,
        "residual_scale": config.residual_multiplier,
        "logits_scale": 1.0 / config.logits_scaling,
    }


FAMILY = Family(
    "granite",
    "Granite",
    mlp_bias=True,
    fields=frozenset(
        {
            "mlp_bias",
            "embedding_multiplier",
            "attention_multiplier",
            "residual_multiplier",
            "logits_scaling",
        }
    ),
    options=_options,
)
