"""Tiny random decoders of transformers, and attention written a second time to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
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
    hidden = inner.embed_tokens(input_ids)
    rotary: LlamaRotaryEmbedding = inner.rotary_emb
    now = torch.arange(time)
    allowed = (now[None] <= now[:, None]) & (
        (now[:, None] - now[None] < window) | (now[None] < sinks)
    )

    def turned(x: Tensor, positions: Tensor) -> Tensor:  # x [batch, heads, time, dim]
        cos, sin = (part[:, None] for part in rotary(x, positions[None]))
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    for layer in inner.layers:
        attention = layer.self_attn
        x = layer.input_layernorm(hidden)

        def heads(projection: torch.nn.Module, x: Tensor = x) -> Tensor:
            return projection(x).reshape(batch, time, -1, dim)

        query, key = heads(attention.q_proj), heads(attention.k_proj)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = query.transpose(1, 2), key.transpose(1, 2)
        value = heads(attention.v_proj).transpose(1, 2)
        group = config.num_attention_heads // config.num_key_value_heads
        key = turned(key, now).repeat_interleave(group, dim=1)
        value = value.repeat_interleave(group, dim=1)
        near = turned(query, now) @ key.mT
        far = turned(query, now.clamp(max=sinks + window - 1)) @ key.mT
        scores = torch.where(now[None] < sinks, far, near) * dim**-0.5
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, time, -1)
        hidden = hidden + attention.o_proj(mixed)
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return model.lm_head(inner.norm(hidden))
