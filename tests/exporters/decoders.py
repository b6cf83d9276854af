"""Tiny random decoders of transformers, and attention written a second time to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SeedOssConfig,
    SeedOssForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

_SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}

_PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.4,
    "logits_scaling": 5.0,
}

DECODERS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama untied": (LlamaConfig, LlamaForCausalLM, {}),
    "llama with biases": (
        LlamaConfig,
        LlamaForCausalLM,
        {"attention_bias": True, "mlp_bias": True},
    ),
    "llama with wide heads": (LlamaConfig, LlamaForCausalLM, {"head_dim": 20}),
    "llama rope llama3": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": _LLAMA3}),
    "llama rope linear": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": _LINEAR}),
    "llama one head each": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 4}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen2 rope yarn": (Qwen2Config, Qwen2ForCausalLM, {"rope_parameters": _YARN}),
    "qwen3 tied": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 with biases": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16, "attention_bias": True}),
    "qwen3 rope yarn": (
        Qwen3Config,
        Qwen3ForCausalLM,
        {"head_dim": 16, "rope_parameters": _YARN},
    ),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 200}),
    "mistral without a window": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
    "granite": (GraniteConfig, GraniteForCausalLM, _MULTIPLIERS),
    "granite tied, with biases": (
        GraniteConfig,
        GraniteForCausalLM,
        {**_MULTIPLIERS, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"sliding_window": 200}),
    "phi3 partial rope": (Phi3Config, Phi3ForCausalLM, {"rope_parameters": _PARTIAL}),
    "smollm3": (
        SmolLM3Config,
        SmolLM3ForCausalLM,
        {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 1]},
    ),
    "seed_oss": (SeedOssConfig, SeedOssForCausalLM, {"head_dim": 16}),
}


def decoder(name: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A decoder whose weights are large enough that attention is far from uniform."""
    config_class, model_class, options = DECODERS[name]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**_SIZES, **options, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.25)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def relative_rms(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference relative to that of the wanted values."""
    difference = (found - wanted).double().square().mean().sqrt()
    return float(difference / wanted.double().square().mean().sqrt())


def masked_attention_logits(
    model: PreTrainedModel, input_ids: Tensor, *, window: int, sinks: int
) -> Tensor:
    """Logits of a transformers decoder with dense masked attention over sinks and window.

    A second formulation of the whole layer stack: all tokens at once, a mask of the full square,
    and for the sinks a second square of products with queries turned no further than the
    distance sinks + window - 1. Modules of the pretrained model do the rest.
    """
    config, inner = model.config, model.model
    batch, time = input_ids.shape
    dim = inner.layers[0].self_attn.head_dim
    hidden = inner.embed_tokens(input_ids) * getattr(config, "embedding_multiplier", 1.0)
    rotary: LlamaRotaryEmbedding = inner.rotary_emb
    now = torch.arange(time)
    allowed = (now[None] <= now[:, None]) & (
        (now[:, None] - now[None] < window) | (now[None] < sinks)
    )

    def turned(x: Tensor, positions: Tensor) -> Tensor:  # x [batch, heads, time, dim]
        cos, sin = (part[:, None] for part in rotary(x, positions[None]))
        x, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([x * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)

    for layer in inner.layers:
        attention = layer.self_attn
        x = layer.input_layernorm(hidden)

        def heads(flat: Tensor) -> Tensor:
            return flat.reshape(batch, time, -1, dim)

        if hasattr(attention, "qkv_proj"):
            sizes = [dim * config.num_attention_heads, *[dim * config.num_key_value_heads] * 2]
            query, key, value = map(heads, attention.qkv_proj(x).split(sizes, dim=-1))
        else:
            query, key, value = (
                heads(projection(x))
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        group = config.num_attention_heads // config.num_key_value_heads
        turn = turned if getattr(attention, "use_rope", True) else lambda x, positions: x
        key = turn(key, now).repeat_interleave(group, dim=1)
        value = value.repeat_interleave(group, dim=1)
        near = turn(query, now) @ key.mT
        far = turn(query, now.clamp(max=sinks + window - 1)) @ key.mT
        scores = torch.where(now[None] < sinks, far, near) * attention.scaling
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, time, -1)
        scale = getattr(config, "residual_multiplier", 1.0)
        hidden = hidden + scale * attention.o_proj(mixed)
        hidden = hidden + scale * layer.mlp(layer.post_attention_layernorm(hidden))
    return model.lm_head(inner.norm(hidden)) / getattr(config, "logits_scaling", 1.0)
