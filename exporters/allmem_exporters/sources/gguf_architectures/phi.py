"""Phi: matrices that hold several others from Phi-3 on, and a part of each head that turns."""

from __future__ import annotations

from typing import Any

from allmem_exporters.sources.gguf_architectures.architecture import (
    ATTENTION,
    WHOLE_MODEL,
    Architecture,
)
from allmem_exporters.sources.gguf_described import Described


def _phi3(described: Described) -> dict[str, Any]:
    """Windows are in the file, though llama.cpp does without."""
    original = described.metadata.size("rope.scaling.original_context_length", described.length)
    return {
        "sliding_window": described.window,
        "original_max_position_embeddings": original,
    }


ARCHITECTURES = (
    Architecture(
        "phi3",
        "phi3",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        options=_phi3,
        reads=frozenset({"rope.scaling.attn_factor"}),
        partial=True,
        windowed=True,
    ),
    Architecture(
        "phi2",
        "phi",
        ATTENTION | {"attn_output": "self_attn.dense", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"},
        WHOLE_MODEL | {"output_norm": "model.final_layernorm"},
        epsilon="layer_norm_eps",
        partial=True,
    ),
)
