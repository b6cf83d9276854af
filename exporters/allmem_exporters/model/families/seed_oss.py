"""Seed-OSS: biases on queries, keys and values, and none on the output."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    if not config.attention_bias or config.attention_out_bias:
        raise ValueError(
            f"attention_bias is {config.attention_bias} and attention_out_bias "
            f"{config.attention_out_bias}; only biases on the inputs alone are known"
        )
    return {}


FAMILY = Family(
    "seed_oss",
    "Seed-OSS",
    input_bias=True,
    mlp_bias=True,
    fields=frozenset({"mlp_bias", "attention_out_bias", "residual_dropout"}),
    options=_options,
)
