"""GLM-4-0414: norms around both branches, neighboring coordinates rotate, some do not."""

from __future__ import annotations

from typing import Any

from allmem_exporters.sources.gguf_architectures.architecture import ATTENTION, Architecture
from allmem_exporters.sources.gguf_described import Described


def _glm4(described: Described) -> dict[str, Any]:
    return {"attention_bias": described.has("blk.0.attn_q.bias")}


ARCHITECTURES = (
    Architecture(
        "glm4",
        "glm4",
        ATTENTION
        | {
            "post_attention_norm": "post_self_attn_layernorm",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
            "post_ffw_norm": "post_mlp_layernorm",
        },
        options=_glm4,
        partial=True,
    ),
)
