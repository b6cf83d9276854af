"""StarCoder2, StableLM, GPT-NeoX and Nemotron: norms that subtract the mean, with biases."""

from __future__ import annotations

from typing import Any

from allmem_exporters.sources.gguf_architectures.architecture import (
    ATTENTION,
    LLAMA,
    WHOLE_MODEL,
    Architecture,
)
from allmem_exporters.sources.gguf_described import Described


def _starcoder2(described: Described) -> dict[str, Any]:
    return {"use_bias": described.has("blk.0.attn_q.bias"), "sliding_window": described.window}


def _stablelm(described: Described) -> dict[str, Any]:
    """Without a norm before its network a layer's branches read the same norm."""
    if described.has("blk.0.attn_q_norm.weight"):
        raise ValueError("norms of single heads (blk.0.attn_q_norm.weight)")
    return {
        "use_qkv_bias": described.has("blk.0.attn_q.bias"),
        "use_parallel_residual": not described.has("blk.0.ffn_norm.weight"),
    }


def _gpt_neox(described: Described) -> dict[str, Any]:
    key = f"{described.metadata.architecture}.use_parallel_residual"
    return {
        "use_parallel_residual": described.metadata.flag(key, True),
        "attention_bias": described.has("blk.0.attn_qkv.bias"),
    }


def _nemotron(described: Described) -> dict[str, Any]:
    return {
        "attention_bias": described.has("blk.0.attn_q.bias"),
        "mlp_bias": described.has("blk.0.ffn_up.bias"),
    }


ARCHITECTURES = (
    Architecture(
        "starcoder2",
        "starcoder2",
        ATTENTION
        | {
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        options=_starcoder2,
        epsilon="norm_epsilon",
        windowed=True,
    ),
    Architecture(
        "stablelm",
        "stablelm",
        LLAMA,
        options=_stablelm,
        epsilon="layer_norm_eps",
        reads=frozenset({"use_parallel_residual"}),
        partial=True,
    ),
    Architecture(
        "gptneox",
        "gpt_neox",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        {
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "lm_head",
        },
        layers="gpt_neox.layers",
        options=_gpt_neox,
        epsilon="layer_norm_eps",
        reads=frozenset({"use_parallel_residual"}),
        partial=True,
        by_head=True,
    ),
    Architecture(
        "nemotron",
        "nemotron",
        ATTENTION
        | {
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        },
        WHOLE_MODEL,
        options=_nemotron,
        epsilon="norm_eps",
        reads=frozenset({"attention.layer_norm_rms_epsilon"}),
        partial=True,
        less_one=True,
    ),
)
