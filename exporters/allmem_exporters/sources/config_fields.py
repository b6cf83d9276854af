"""Which fields of a pretrained model's configuration are understood, and which do not matter.

Any other field may change what the model computes, so it is refused by name. These are the fields
that every decoder may have; what only some families have stands in their files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from allmem_exporters.model.families import FAMILIES

_UNDERSTOOD = {
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_parameters", "attention_bias",
    "tie_word_embeddings", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id",
    "quantization_config", "is_heterogeneous", "per_layer_config", "layer_types",
}  # fmt: skip
"""Read, or refused for a reason of their own, by ``backbone_options``."""

_WITHOUT_EFFECT = {
    # Where the file comes from, and how it is to be opened.
    "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path",
    "name_or_path", "use_cache", "attn_implementation", "_attn_implementation", "torchscript",
    "license", "base_model", "auto_map", "tokenizer_class", "transformers.js_config",
    "unsloth_version", "unsloth_fixed", "is_llama_config", "quantization", "use_bfloat16",
    "gradient_checkpointing", "transformers_weights", "model_name", "vllm_config", "tf_legacy_loss",
    # What a call returns beside the logits.
    "output_hidden_states", "output_attentions", "return_dict", "tie_last_hidden_states",
    # Training, and heads for other tasks.
    "attention_dropout", "hidden_dropout", "id2label", "label2id", "num_labels", "problem_type",
    "finetuning_task", "classifier_dropout", "neftune_noise_alpha", "task_specific_params",
    "output_router_logits", "router_aux_loss_coef",
    # Tokens that only prompts and generation name.
    "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "decoder_start_token_id",
    "image_token_id", "prefix", "begin_suppress_tokens", "suppress_tokens",
}  # fmt: skip
_ONLY: dict[str, tuple[Any, ...]] = {
    "is_causal": (True,),
    "is_decoder": (True, False),  # a decoder of these families is one in any case
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "chunk_size_feed_forward": (0,),
    "pretraining_tp": (1,),
    "pruned_heads": ({},),
    "tie_encoder_decoder": (False,),
    "use_bidirectional_attention": (False,),
    "rope_interleaved": (False,),
    "use_mrope": (False,),
    "num_nextn_predict_layers": (0,),
}
"""Fields with the values that change nothing; null is one of them for every field."""

_ROPE_SETTINGS = {
    "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings",
    "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor", "mscale",
    "mscale_all_dim", "truncate", "partial_rotary_factor", "finetuned",
}  # fmt: skip


def unknown_field(config: Any) -> str | None:
    """A field of a configuration that may change what the model computes, and its value.

    A field that transformers' own class declares may have its default value: that is what a model
    has whose configuration is older than the field.

    Of a family that is not ours, all that its class declares is followed by transformers' code.

    Args:
        config: of transformers.

    Returns:
        What is wrong, for a message; None where every field is known.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    family = FAMILIES.get(config.model_type)
    # Some classes compute fields that they do not declare.
    declared = (
        set(type(config)().to_dict())
        if family is None
        else family.fields | set(family.named.values())
    )
    known = (_UNDERSTOOD | _WITHOUT_EFFECT | declared) - _ONLY.keys()
    for name, value in config.to_dict().items():
        if name in known or value is None:
            continue
        if name in _ONLY:
            if value not in _ONLY[name]:
                return f"{name} is {value!r}, which changes what the model computes"
        elif name not in defaults or value != defaults[name]:
            return f"{name} is {str(value)[:80]!r}, a field that {config.model_type} decoders lack"
    return None


def unknown_rope_setting(rope: Mapping[str, Any]) -> str | None:
    """A setting of a rotary embedding that nobody here understands; None if there is none."""
    return min(
        (key for key, value in rope.items() if key not in _ROPE_SETTINGS and value is not None),
        default=None,
    )
