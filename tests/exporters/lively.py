"""Tiny checkpoints in which nothing is zero or one that training would change: biases, gains."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import tiny_config, tiny_model, write_tiny_checkpoint

from allmem_exporters import AllMemConfig, AllMemForCausalLM

FAMILIES = {
    "llama": tiny_config(),
    "qwen2": tiny_config(backbone="qwen2", num_attention_heads=6, hidden_size=36),
    "qwen3, untied, other head size": tiny_config(
        backbone="qwen3", tie_word_embeddings=False, head_dim=12
    ),
    "llama, float32 cache, no sinks": tiny_config(cache_dtype="float32", sinks=0),
    "llama, int8 keys and values": tiny_config(cache_dtype="int8"),
    "llama, biases, gelu, one memory head": tiny_config(
        attention_bias=True, mlp_bias=True, hidden_act="gelu", mem_heads=1
    ),
    "llama, relu, every other choice": tiny_config(
        inner_loss="l2",
        norm_schedule="post",
        lr_groups="shared",
        lr_reduce="mean",
        out_gate="none",
        v_norm="rms",
        conv_act="silu_qk",
        sink_rope="true",
        hidden_act="relu",
    ),
    "granite, multipliers": tiny_config(
        backbone="granite",
        embedding_scale=3.0,
        attention_scale=0.3,
        residual_scale=0.4,
        logits_scale=0.2,
        attention_bias=True,
        mlp_bias=True,
    ),
    "smollm3, a layer without rope": tiny_config(backbone="smollm3", unrotated_layers=[1]),
    "phi3, partial rope": tiny_config(
        backbone="phi3",
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "gemma2, caps, local layers": tiny_config(
        backbone="gemma2",
        hidden_act="gelu_pytorch_tanh",
        embedding_scale=3.0,
        attention_softcap=2.0,
        logits_softcap=1.5,
        local_layers=[1],
        local_window=16,
    ),
    "gemma3_text, head norms": tiny_config(
        backbone="gemma3_text",
        local_layers=[0],
        local_window=17,
        local_rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    ),
    "olmo3, norms behind, two ropes": tiny_config(
        backbone="olmo3",
        local_layers=[0],
        local_window=16,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        local_rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    ),
    "cohere2, side by side": tiny_config(
        backbone="cohere2",
        local_layers=[0],
        local_window=20,
        unrotated_layers=[1],
        logits_scale=0.3,
    ),
    "glm4, biases, some coordinates": tiny_config(
        backbone="glm4",
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "llama, gelu_pytorch_tanh": tiny_config(hidden_act="gelu_pytorch_tanh"),
}


def lively_model(config: AllMemConfig | None = None, seed: int = 0) -> AllMemForCausalLM:
    """A tiny model with random biases and gains as well."""
    model = tiny_model(config, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(1.0, 0.2)
            elif name.endswith("bias") and "lr_proj" not in name:
                parameter.normal_(0.0, 0.3)
    return model


def write_lively(folder: Path, config: AllMemConfig | None = None, seed: int = 0) -> Path:
    """Its checkpoint folder, with tokenizer and template."""
    write_tiny_checkpoint(folder, config, seed)
    lively_model(config, seed).save_pretrained(folder)
    return folder
