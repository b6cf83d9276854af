"""SmolLM3: every fourth layer has no rope."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    unrotated = [index for index, turned in enumerate(config.no_rope_layers) if not turned]
    return {"unrotated_layers": unrotated or None}


FAMILY = Family(
    "smollm3",
    "SmolLM3",
    mlp_bias=True,
    fields=frozenset(
        {
            "mlp_bias",
            "no_rope_layers",
            "no_rope_layer_interval",  # of which transformers makes no_rope_layers
            "layer_types",
            "use_sliding_window",
            "sliding_window",
        }
    ),
    options=_options,
)
