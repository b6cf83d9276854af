"""Gemma 2: norms around both branches, caps on scores and logits, every other layer local."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    return {
        "embedding_scale": config.hidden_size**0.5,
        "attention_scale": config.query_pre_attn_scalar**-0.5,
        "attention_softcap": config.attn_logit_softcapping,
        "logits_softcap": config.final_logit_softcapping,
    }


FAMILY = Family(
    "gemma2",
    "Gemma 2",
    norms="around",
    unit_gain=True,
    fields=frozenset(
        {
            "query_pre_attn_scalar",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "sliding_window",
            "sliding_window_size",  # an older name that transformers does not read
            "hidden_act",  # hidden_activation counts
            "cache_implementation",  # transformers' own cache
        }
    ),
    options=_options,
    named={"hidden_act": "hidden_activation"},
)
