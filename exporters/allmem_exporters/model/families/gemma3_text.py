"""Gemma 3, texts alone: norms around both branches and of heads, local layers with their rope."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    if config.attn_logit_softcapping is not None:
        raise ValueError("attn_logit_softcapping is set, which transformers' own code leaves out")
    return {
        "embedding_scale": config.hidden_size**0.5,
        "attention_scale": config.query_pre_attn_scalar**-0.5,
        "logits_softcap": config.final_logit_softcapping,
    }


FAMILY = Family(
    "gemma3_text",
    "Gemma 3",
    norms="around",
    unit_gain=True,
    head_norms=True,
    fields=frozenset(
        {
            "query_pre_attn_scalar",
            "final_logit_softcapping",
            "attn_logit_softcapping",
            "sliding_window",
            # Of which transformers makes layer_types and rope_parameters.
            "sliding_window_pattern",
            "_sliding_window_pattern",
            "rope_local_base_freq",
            "rope_theta",
            "rope_scaling",
            "hidden_act",  # hidden_activation counts
            "cache_implementation",  # transformers' own cache
        }
    ),
    options=_options,
    named={"hidden_act": "hidden_activation"},
)
