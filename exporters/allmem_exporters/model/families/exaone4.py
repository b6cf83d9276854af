"""EXAONE 4: norms behind both branches and of heads; where layers are local, no others turn."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    if config.sliding_window is None:
        return {}
    kinds = enumerate(config.layer_types)
    unrotated = [layer for layer, kind in kinds if kind != "sliding_attention"]
    return {"unrotated_layers": unrotated or None}


FAMILY = Family(
    "exaone4",
    "EXAONE 4",
    norms="behind",
    head_norms=True,
    # Of the pattern transformers makes layer_types.
    fields=frozenset({"sliding_window", "sliding_window_pattern"}),
    options=_options,
)
