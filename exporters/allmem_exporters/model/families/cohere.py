"""Cohere (Command R): both branches read one LayerNorm, and neighboring coordinates rotate."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    if getattr(config, "use_qk_norm", False):
        raise ValueError("use_qk_norm is True; LayerNorms of single heads are not known")
    return {"logits_scale": config.logit_scale}


FAMILY = Family(
    "cohere",
    "Cohere",
    norms="parallel",
    centered=True,
    pairs=True,
    fields=frozenset({"logit_scale", "use_qk_norm"}),
    options=_options,
    named={"rms_norm_eps": "layer_norm_eps"},
)
