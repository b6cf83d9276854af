"""The configuration of transformers that a GGUF file describes."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from allmem_exporters.errors import ConversionError, first_line
from allmem_exporters.generic.config import check_decoder_sizes
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.sources.gguf_architectures import Architecture
from allmem_exporters.sources.gguf_described import ROPE_FACTORS, Described, special_tokens
from allmem_runtime.errors import AllMemError

_ORIGINAL = "Convert the original safetensors checkpoint instead."
_MAY_BE_LEFT_OUT = (False, None)


def config_of(described: Described, architecture: Architecture) -> PretrainedConfig:
    """The configuration of a file, in which factors of the rope are left out.

    Args:
        described: the file.
        architecture: of it.

    Raises:
        ConversionError: something in the file has no counterpart; names it.
    """
    metadata = described.metadata
    if not architecture.windowed and described.window is not None:
        raise described.refuse("its attention is a sliding window")
    values: dict[str, Any] = {
        "vocab_size": described.vocabulary,
        "hidden_size": described.hidden,
        "intermediate_size": metadata.size("feed_forward_length"),
        "num_hidden_layers": described.layers,
        "num_attention_heads": described.heads,
        "num_key_value_heads": metadata.size("attention.head_count_kv", described.heads),
        "head_dim": described.head_dim,
        "max_position_embeddings": described.length,
        architecture.epsilon: metadata.number(architecture.epsilon_key),
        "rope_parameters": described.rope(partial=architecture.partial),
        "tie_word_embeddings": not described.has("output.weight"),
        **special_tokens(metadata),
    }
    try:
        values |= architecture.options(described)
    except ValueError as error:
        raise described.refuse(f"it has {error}") from None
    kind = values.pop("model_type", architecture.model_type)
    if described.has(ROPE_FACTORS) and (kind not in FAMILIES or "full_attention" in
                                        values["rope_parameters"]):  # fmt: skip
        raise described.refuse(
            f"its rope is scaled in a way that is not known here ({ROPE_FACTORS} in a {kind} "
            "decoder)"
        )
    return _made(described, kind, values)


def _made(described: Described, kind: str, values: dict[str, Any]) -> PretrainedConfig:
    """The configuration of these values; one that its class lacks must say what is so anyway."""
    made = CONFIG_MAPPING[kind]
    declared = {field.name for field in dataclasses.fields(made)} | made.attribute_map.keys()
    heads, width = described.heads, described.hidden
    follow = {"head_dim": width // heads if width % heads == 0 else 0, "num_key_value_heads": heads}
    for name in [name for name in values if name not in declared]:
        value = values[name]
        if kind in FAMILIES and name == "head_dim":
            continue
        if value != follow.get(name, value if value in _MAY_BE_LEFT_OUT else object()):
            raise described.refuse(f"{kind} decoders have no {name}, which is {value!r} here")
        del values[name]
    try:
        check_decoder_sizes(values, made)
        config: PretrainedConfig = made(**values)
    except AllMemError:
        raise
    except Exception as error:  # noqa: BLE001 (each class checks in its own way)
        raise ConversionError(
            f"{described.metadata.name}: its metadata cannot be meant ({first_line(error)}).",
            _ORIGINAL,
        ) from error
    return config
