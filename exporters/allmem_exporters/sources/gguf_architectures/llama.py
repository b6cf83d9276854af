"""Llama and what is built like it: the same layers, in one of two orders of rows."""

from __future__ import annotations

from typing import Any

from allmem_exporters.sources.gguf_architectures.architecture import (
    ATTENTION,
    HEAD_NORMS,
    LLAMA,
    Architecture,
)
from allmem_exporters.sources.gguf_described import Described


def _biases(described: Described) -> dict[str, Any]:
    return {
        "attention_bias": described.has("blk.0.attn_q.bias"),
        "mlp_bias": described.has("blk.0.ffn_up.bias"),
    }


def _qwen3(described: Described) -> dict[str, Any]:
    return {"attention_bias": described.has("blk.0.attn_q.bias")}


def _smollm3(described: Described) -> dict[str, Any]:
    """Each fourth layer turns nothing, which no key says."""
    turned = [int((layer + 1) % 4 != 0) for layer in range(described.layers)]
    return {**_biases(described), "no_rope_layers": turned}


def _seed_oss(described: Described) -> dict[str, Any]:
    return {"attention_bias": described.has("blk.0.attn_q.bias"), "attention_out_bias": False}


def _granite(described: Described) -> dict[str, Any]:
    """Four multipliers; what is not said multiplies by nothing but a head's usual scale."""
    number = described.metadata.number
    return {
        **_biases(described),
        "attention_multiplier": number("attention.scale", described.head_dim**-0.5),
        "embedding_multiplier": number("embedding_scale", 1.0),
        "residual_multiplier": number("residual_scale", 1.0),
        "logits_scaling": number("logit_scale", 1.0),
    }


ARCHITECTURES = (
    Architecture("llama", "llama", options=_biases, turned=True),
    Architecture("qwen2", "qwen2"),
    Architecture("qwen3", "qwen3", LLAMA | HEAD_NORMS, options=_qwen3),
    Architecture("exaone", "llama", options=_biases),  # EXAONE 3: Llama by other names
    Architecture("smollm3", "smollm3", options=_smollm3, turned=True),
    Architecture(
        "seed_oss",
        "seed_oss",
        {**LLAMA, "post_attention_norm": "post_attention_layernorm"},
        options=_seed_oss,
    ),
    Architecture(
        "granite",
        "granite",
        options=_granite,
        reads=frozenset({"attention.scale", "embedding_scale", "residual_scale", "logit_scale"}),
        only={"rope.scaling.finetuned": (True,)},  # else nothing turns
        turned=True,
    ),
    Architecture(
        "arcee",
        "arcee",
        ATTENTION | {"ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.up_proj",
                     "ffn_down": "mlp.down_proj"},
        options=_biases,
        turned=True,
    ),
    Architecture("ernie4_5", "ernie4_5"),
)  # fmt: skip
