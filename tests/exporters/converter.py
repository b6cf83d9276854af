"""What llama.cpp's converter writes of each family: metadata, names and layouts.

Written after https://github.com/ggml-org/llama.cpp/tree/master/conversion, apart from our reader.
"""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np

_ARCHITECTURES = {
    "cohere": "command-r",
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "olmo3": "olmo2",
    "phi": "phi2",
}
"""By ``model_type``, where it is another name."""
_TURNED = ("arcee", "granite", "llama", "smollm3")
"""Families whose rows of queries and keys are reordered."""
_SHIFTED = ("gemma", "gemma2", "gemma3_text", "nemotron")
"""Families to the weights of whose norms 1 is added."""
_BY_ITSELF = ("gemma", "gemma2", "gpt_neox", "phi", "stablelm")
"""Families of which the base of the rope is not written: they all have one."""


def architecture(kind: str) -> str:
    """llama.cpp's name of a ``model_type``."""
    return _ARCHITECTURES.get(kind, kind)


def head_dim_of(config: Any) -> int:
    """Width of a head."""
    found = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(found)


def describe(writer: gguf.GGUFWriter, config: Any) -> None:
    """Write the metadata of a decoder's configuration."""
    kind, head_dim = config.model_type, head_dim_of(config)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if kind != "gpt_neox":
        writer.add_head_count_kv(config.num_key_value_heads)
    if kind not in ("gpt_neox", "phi", "phi3", "stablelm"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    for key in ("rms_norm_eps", "norm_eps"):
        if hasattr(config, key):
            writer.add_layer_norm_rms_eps(getattr(config, key))
    for key in ("layer_norm_eps", "norm_epsilon", "norm_eps"):
        if hasattr(config, key):
            writer.add_layer_norm_eps(getattr(config, key))
    if kind not in _BY_ITSELF:
        writer.add_rope_freq_base(rope["rope_theta"])
    if "partial_rotary_factor" in rope or kind in ("phi3", *_TURNED):
        part = rope.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(head_dim * part))
    _describe_family(writer, config, kind)


def _describe_family(writer: gguf.GGUFWriter, config: Any, kind: str) -> None:
    kinds = getattr(config, "layer_types", None) or []
    if kind in ("cohere2", "exaone4", "gemma2", "gemma3_text", "olmo3") and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    if kind in ("exaone4", "olmo3") and config.sliding_window:
        writer.add_sliding_window_pattern([one == "sliding_attention" for one in kinds])
    if kind == "gemma3_text":
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if kind in ("gemma2", "gemma3_text") and config.final_logit_softcapping is not None:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if kind in ("cohere", "cohere2"):
        writer.add_logit_scale(config.logit_scale)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if kind == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if kind == "phi3":
        writer.add_sliding_window(config.sliding_window or 0)
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    if kind in ("gpt_neox", "stablelm"):
        writer.add_parallel_residual(config.use_parallel_residual)
    if kind == "nemotron":
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if kind in ("arcee", "cohere2", "exaone4", "nemotron"):
        writer.add_vocab_size(config.vocab_size)


def converted(key: str, values: np.ndarray, config: Any) -> np.ndarray:
    """A tensor as the converter stores it.

    Args:
        key: its name in transformers.
        values: of it.
        config: of the decoder.
    """
    kind = config.model_type
    if kind in _TURNED and ("q_proj" in key or "k_proj" in key):
        halves = values.reshape(-1, 2, head_dim_of(config) // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
    if kind in _SHIFTED and key.endswith("norm.weight"):
        return values + np.float32(1)
    if kind == "gpt_neox" and "query_key_value" in key:
        heads = values.reshape(config.num_attention_heads, 3, -1, *values.shape[1:])
        return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(values.shape)
    return values
