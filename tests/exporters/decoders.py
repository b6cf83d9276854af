"""Tiny random decoders of transformers, and attention written a second time to compare with."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    Cohere2Config,
    Cohere2ForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Exaone4Config,
    Exaone4ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    Glm4Config,
    Glm4ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    HeliumConfig,
    HeliumForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
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

_LOCAL: dict[str, Any] = {
    "num_hidden_layers": 3,
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
"""Local layers around a global one."""
_OF_KINDS = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 100000.0, "factor": 2.0},
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
    "gemma": (GemmaConfig, GemmaForCausalLM, {"head_dim": 16}),
    "gemma2": (
        Gemma2Config,
        Gemma2ForCausalLM,
        {
            **_LOCAL,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3_text": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {
            **_LOCAL,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "rope_parameters": _OF_KINDS,
        },
    ),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM, {}),
    "olmo3": (
        Olmo3Config,
        Olmo3ForCausalLM,
        {
            **_LOCAL,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": _YARN,
            },
        },
    ),
    "exaone4": (Exaone4Config, Exaone4ForCausalLM, {**_LOCAL, "rope_parameters": _LLAMA3}),
    "exaone4 without windows": (
        Exaone4Config,
        Exaone4ForCausalLM,
        {"sliding_window": None, "layer_types": ["full_attention"] * 2},
    ),
    "glm": (GlmConfig, GlmForCausalLM, {"head_dim": 16, "attention_bias": True}),
    "helium": (HeliumConfig, HeliumForCausalLM, {"head_dim": 12, "attention_bias": True}),
    "glm4": (Glm4Config, Glm4ForCausalLM, {"head_dim": 16, "attention_bias": True}),
    "cohere": (CohereConfig, CohereForCausalLM, {"logit_scale": 0.3}),
    "cohere2": (Cohere2Config, Cohere2ForCausalLM, {**_LOCAL, "logit_scale": 0.3}),
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

    A second formulation: transformers' own layers, with a mask of the full square in place of
    theirs, and for the sinks a second square of products with queries turned back to the distance
    sinks + window - 1. Layers with a window of their own keep that, and no sinks.
    """
    now = torch.arange(input_ids.shape[1])
    distance = now[:, None] - now[None]
    rotary = model.model.rotary_emb

    def turned_back(module: torch.nn.Module, query: Tensor) -> Tensor:
        """Queries that stand where they meet sinks, of queries that stand where they are."""
        moved = now.clamp(max=sinks + window - 1)[None] - now[None]
        if not getattr(module, "use_rope", True) or _unturned(module):
            return query
        kind = [getattr(module, "layer_type", getattr(module, "attention_type", None))]
        kind = kind if hasattr(rotary, "layer_types") else []
        cos, sin = (part[:, None] for part in rotary(query, moved, *kind))
        scaling = getattr(rotary, "attention_scaling", None)
        if scaling is None:
            scaling = getattr(rotary, f"{kind[0]}_attention_scaling")
        cos, sin = cos / scaling, sin / scaling
        apply = sys.modules[type(module).__module__].apply_rotary_pos_emb
        found: Tensor = apply(query, query, cos[:, 0], sin[:, 0])[0]
        return found

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: object,
        scaling: float, softcap: float | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        group = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
        local = _local(module)
        seen = (distance >= 0) & (distance < (local or window))
        near = query @ key.mT
        if local is None:
            seen |= (distance >= 0) & (now[None] < sinks)
            near = torch.where(now[None] < sinks, turned_back(module, query) @ key.mT, near)
        scores = near * scaling
        if softcap is not None:
            scores = softcap * (scores / softcap).tanh()
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        return (weights @ value).transpose(1, 2), None

    AttentionInterface.register("window_and_sinks", attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = "window_and_sinks"
    try:
        found: Tensor = model(input_ids).logits
    finally:
        model.config._attn_implementation = before
    return found


def _local(module: torch.nn.Module) -> int | None:
    """The window of a layer of its own, where others see everything."""
    config = module.config
    kinds = getattr(config, "layer_types", None) or ()
    mixed = "full_attention" in kinds and kinds[module.layer_idx] == "sliding_attention"
    return config.sliding_window if mixed else None


def _unturned(module: torch.nn.Module) -> bool:
    """Whether positions turn nothing in a layer: global ones of Cohere 2 and EXAONE 4."""
    config = module.config
    return (
        config.model_type in ("cohere2", "exaone4")
        and config.sliding_window is not None
        and _local(module) is None
    )
