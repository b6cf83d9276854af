"""Gemma: Llama with scaled embeddings, GELU, and norms whose gain is 1 + their weight."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    return {"embedding_scale": config.hidden_size**0.5}


FAMILY = Family("gemma", "Gemma", unit_gain=True, fields=frozenset(), options=_options)
