"""Cohere (Command R) and Cohere 2: both branches read one norm."""

from __future__ import annotations

from typing import Any

from allmem_exporters.sources.gguf_architectures.architecture import ATTENTION, GATED, Architecture
from allmem_exporters.sources.gguf_described import Described


def _cohere(described: Described) -> dict[str, Any]:
    if described.has("blk.0.attn_q_norm.weight"):
        raise ValueError("norms of single heads (blk.0.attn_q_norm.weight)")
    return {"logit_scale": described.metadata.number("logit_scale")}


def _cohere2(described: Described) -> dict[str, Any]:
    window = described.window
    if window is None:
        raise ValueError("no attention.sliding_window, which local layers need")
    return {
        "logit_scale": described.metadata.number("logit_scale"),
        "sliding_window": window,
        "layer_types": described.layer_types(4, window),
    }


ARCHITECTURES = (
    Architecture(
        "command-r",
        "cohere",
        ATTENTION | GATED,
        options=_cohere,
        epsilon="layer_norm_eps",
        reads=frozenset({"logit_scale"}),
    ),
    Architecture(
        "cohere2",
        "cohere2",
        ATTENTION | GATED,
        options=_cohere2,
        epsilon="layer_norm_eps",
        reads=frozenset({"logit_scale", "attention.sliding_window_pattern"}),
        windowed=True,
    ),
)
