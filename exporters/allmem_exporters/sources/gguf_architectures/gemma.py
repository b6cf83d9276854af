"""Gemma 1 to 3: the converter adds to the weights of norms the 1 that transformers adds later."""

from __future__ import annotations

from typing import Any

from allmem_exporters.sources.gguf_architectures.architecture import (
    ATTENTION,
    BEHIND,
    GATED,
    HEAD_NORMS,
    LLAMA,
    Architecture,
)
from allmem_exporters.sources.gguf_described import Described

_AROUND = ATTENTION | GATED | BEHIND | {"ffn_norm": "pre_feedforward_layernorm"}
_LOCAL = frozenset({"attention.sliding_window_pattern", "final_logit_softcapping"})
_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, which divide scores by the root of the width that a head has of the
stream; all others by the root of a head's own. No key says it."""


def _scalar(described: Described) -> int:
    if described.layers == _BY_WIDTH[described.metadata.architecture]:
        return described.hidden // described.heads
    return described.head_dim


def _gemma2(described: Described) -> dict[str, Any]:
    number = described.metadata.number
    window = described.window or 4096
    return {
        "query_pre_attn_scalar": _scalar(described),
        "sliding_window": window,
        "layer_types": described.layer_types(2, window),
        "attn_logit_softcapping": number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": number("final_logit_softcapping", 30.0),
    }


def _gemma3(described: Described) -> dict[str, Any]:
    """Local layers turn by frequencies of their own, which nothing scales."""
    metadata, window = described.metadata, described.window
    if window is None:
        raise ValueError("no attention.sliding_window, which local layers need")
    cap = metadata.number("final_logit_softcapping", 0.0, least=0.0)
    local = metadata.number("rope.freq_base_swa", 10000.0)
    return {
        "query_pre_attn_scalar": _scalar(described),
        "sliding_window": window,
        "layer_types": described.layer_types(6, window),
        "final_logit_softcapping": cap or None,
        "rope_parameters": {
            "full_attention": described.rope(),
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }


ARCHITECTURES = (
    Architecture("gemma", "gemma", LLAMA, less_one=True),
    Architecture(
        "gemma2",
        "gemma2",
        _AROUND,
        options=_gemma2,
        reads=_LOCAL | {"attn_logit_softcapping"},
        less_one=True,
        windowed=True,
    ),
    Architecture(
        "gemma3",
        "gemma3_text",
        _AROUND | HEAD_NORMS,
        options=_gemma3,
        reads=_LOCAL | {"rope.freq_base_swa"},
        less_one=True,
        windowed=True,
    ),
)
