"""Phi-3 and Phi-4: one matrix for queries, keys and values, one for gate and up; partial rope."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    return {"trained_window": config.sliding_window}


FAMILY = Family(
    "phi3",
    "Phi-3",
    partial_rotary=True,
    fields=frozenset(
        {
            "sliding_window",
            "embd_pdrop",
            "resid_pdrop",
            "partial_rotary_factor",
            "original_max_position_embeddings",  # of the kind of rope that is refused
        }
    ),
    options=_options,
    packed={
        "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    },
)
