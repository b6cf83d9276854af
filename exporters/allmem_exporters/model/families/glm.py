"""GLM-4: biases on queries, keys and values; neighboring coordinates rotate, some do not."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family(
    "glm",
    "GLM",
    output_bias=False,
    partial_rotary=True,
    pairs=True,
    fields=frozenset({"partial_rotary_factor"}),
    packed={"mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj")},
)
