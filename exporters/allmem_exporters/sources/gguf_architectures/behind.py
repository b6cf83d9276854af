"""OLMo 2 and 3 and EXAONE 4: norms behind both branches, and of queries and keys."""

from __future__ import annotations

from typing import Any

from allmem_exporters.sources.gguf_architectures.architecture import (
    ATTENTION,
    BEHIND,
    GATED,
    HEAD_NORMS,
    Architecture,
)
from allmem_exporters.sources.gguf_described import Described

_BEHIND = {name: own for name, own in ATTENTION.items() if name != "attn_norm"}
_BEHIND |= GATED | HEAD_NORMS | BEHIND


def _olmo2(described: Described) -> dict[str, Any]:
    """With a window it is OLMo 3, whose local layers turn by a rope that nothing scales."""
    bias = {"attention_bias": described.has("blk.0.attn_q.bias")}
    if (window := described.window) is None:
        return bias
    rope = described.rope()
    theta = described.metadata.number("rope.freq_base_swa", rope["rope_theta"])
    return {
        **bias,
        "model_type": "olmo3",
        "sliding_window": window,
        "layer_types": described.layer_types(4, window),
        "rope_parameters": {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": theta},
        },
    }


def _exaone4(described: Described) -> dict[str, Any]:
    window = described.window
    return {"sliding_window": window, "layer_types": described.layer_types(4, window)}


ARCHITECTURES = (
    Architecture(
        "olmo2",
        "olmo2",
        _BEHIND,
        options=_olmo2,
        reads=frozenset({"attention.sliding_window_pattern", "rope.freq_base_swa"}),
        windowed=True,
    ),
    Architecture(
        "exaone4",
        "exaone4",
        _BEHIND,
        options=_exaone4,
        reads=frozenset({"attention.sliding_window_pattern"}),
        windowed=True,
    ),
)
