"""GLM-4-0414: norms around both branches, neighboring coordinates rotate, some do not."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family(
    "glm4",
    "GLM-4",
    norms="around",
    output_bias=False,
    partial_rotary=True,
    pairs=True,
    fields=frozenset({"partial_rotary_factor"}),
    packed={"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")},
    renamed={
        "post_self_attn_layernorm": "post_attention_layernorm",
        "post_attention_layernorm": "pre_feedforward_layernorm",
        "post_mlp_layernorm": "post_feedforward_layernorm",
    },
)
