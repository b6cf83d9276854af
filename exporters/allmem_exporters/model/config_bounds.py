"""Which values each field of ``AllMemConfig`` may have."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from allmem_exporters.errors import ConfigError
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.rope_options import LAYER_KINDS, check_rope
from allmem_runtime.config import BOUNDS
from allmem_runtime.options import declared_options
from allmem_runtime.strict_json import is_number, is_whole

Config = Any
"""An ``AllMemConfig``, which imports this file."""

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")

_OURS = ("mem_", "sink", "window", "chunk", "lr_", "conv_", "inner_", "norm_s", "grad_at", "grad_c",
         "theta_", "qk_", "v_norm", "out_", "cache_", "backbone")  # fmt: skip
"""Prefixes that belong to this project: an unknown key that starts so is a misspelling."""


_CHOICES: dict[str, tuple[str, ...]] = {
    "backbone": tuple(FAMILIES),
    "hidden_act": ACTIVATIONS,
    **{o.name: o.declared.choices for o in declared_options(MemoryOptions) if o.declared.choices},
}

WHOLE: dict[str, tuple[int, int]] = {
    "vocab_size": BOUNDS["vocab_size"],
    "hidden_size": BOUNDS["hidden_size"],
    "intermediate_size": BOUNDS["intermediate_size"],
    "num_hidden_layers": BOUNDS["layers"],
    "num_attention_heads": BOUNDS["query_heads"],
    "num_key_value_heads": BOUNDS["kv_heads"],
    "head_dim": BOUNDS["head_dim"],
    "max_position_embeddings": BOUNDS["trained_context"],
    "mem_width": BOUNDS["memory.width"],
    "mem_heads": BOUNDS["memory.heads"],
    "conv_kernel": BOUNDS["memory.kernel"],
    "window": BOUNDS["window"],
    "sinks": BOUNDS["sinks"],
    "chunk": BOUNDS["chunk"],
}

_FROM_OTHERS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                "num_attention_heads", "num_key_value_heads", "head_dim",
                "max_position_embeddings")  # fmt: skip
"""Sizes that a pretrained model's configuration gives under the same names."""

_SCALES = (1e-6, 1e6)
_NUMBERS: dict[str, tuple[float, float]] = {
    "rms_norm_eps": (1e-12, 1e-2),
    "initializer_range": (0.0, 1.0),
    "mem_hidden_mult": (0.0, 64.0),
    "mem_epsilon": (1e-12, 1e-2),
    "lr_init": (1e-8, 10.0),
    "theta_rel": (0.0, 1e6),
    "embedding_scale": _SCALES,
    "attention_scale": _SCALES,
    "residual_scale": _SCALES,
    "logits_scale": _SCALES,
    "attention_softcap": _SCALES,
    "logits_softcap": _SCALES,
}
_MAY_BE_NONE = ("attention_scale", "attention_softcap", "logits_softcap")

_FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "mem_residual", "out_norm")


def check_whole(key: str, value: object) -> None:
    """Refuse a size that is no integer within its bounds.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    low, high = WHOLE[key]
    if not is_whole(value, low, high):
        raise ConfigError(f"{key} is {value!r}; it must be an integer {low} to {high}.")


def check_sizes(settings: dict[str, Any]) -> None:
    """Check the sizes and the rope in a configuration that transformers is to read.

    Some of its classes make lists as long as a size says.

    Args:
        settings: its keys and values; what is left out or null is for its class to fill in.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    for key in _FROM_OTHERS:
        if settings.get(key) is not None:
            check_whole(key, settings[key])
    for key in ("rope_parameters", "rope_scaling"):
        rope = settings.get(key)
        if isinstance(rope, dict) and LAYER_KINDS & rope.keys():
            for kind in sorted(LAYER_KINDS & rope.keys()):
                check_rope(rope[kind], f"{key}.{kind}")
        else:
            check_rope(rope, key)


def check_fields(config: Config) -> None:
    """Check every field of a configuration by itself.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    for key, choices in _CHOICES.items():
        if key == "backbone" and config.any_backbone:
            continue
        value = getattr(config, key)
        if value not in choices:
            raise ConfigError(f"{key} is {value!r}; allowed: {', '.join(choices)}.")
    for key in WHOLE:
        check_whole(key, getattr(config, key))
    for key, (low, high) in _NUMBERS.items():
        value = getattr(config, key)
        if value is None and key in _MAY_BE_NONE:
            continue
        if not is_number(value, low, high):
            raise ConfigError(f"{key} is {value!r}; it must be a number {low:g} to {high:g}.")
    for key in _FLAGS:
        if not isinstance(getattr(config, key), bool):
            raise ConfigError(f"{key} is {getattr(config, key)!r}; it must be true or false.")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(config, key)
        several = value if key == "eos_token_id" and isinstance(value, list) else [value]
        if len(several) > 64 or not all(v is None or is_whole(v, -1, 1 << 32) for v in several):
            raise ConfigError(f"{key} is {value!r}; it must be a token's id.")


def refuse_misspelt(config: Config, unknown: dict[str, Any]) -> None:
    """Refuse an unknown key that looks like one of this project's.

    Args:
        config: knows its fields.
        unknown: keys and values that are none of them.

    Raises:
        ConfigError: names the key.
    """
    fields = [field.name for field in dataclasses.fields(config)]
    for key, value in unknown.items():
        close = difflib.get_close_matches(key, fields, n=1, cutoff=0.85)
        if close or key.startswith(_OURS):
            advice = f"did you mean {close[0]!r}?" if close else "AllMemConfig lists them."
            raise ConfigError(f"Unknown model option {key!r} (value {value!r});", advice)
