"""Which decoders can be converted, and what their configuration determines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.config_bounds import ACTIVATIONS
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.model.rope_options import FACTORS, LAYER_KINDS, ROPE_KINDS
from allmem_exporters.sources.config_fields import unknown_field, unknown_rope_setting
from allmem_exporters.sources.unknown_family import nearest, parts_missing
from allmem_runtime.files.digest import file_digest

_KINDS = tuple(kind for kind in ROPE_KINDS if kind != FACTORS)
"""Kinds of rope by transformers' names."""

_NAMED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
"""Fields that our configuration has under the same names, or under those of ``Family.named``."""

SUPPORTED = (
    f"Supported are {', '.join(FAMILIES)} decoders with full or sliding attention, rope "
    f"{', '.join(_KINDS)} and unquantized weights, and from folders and the hub many other dense "
    "decoders: see docs/models.md."
)
_DELETE = (
    "If what the model computes does not depend on it, delete it from config.json; else the model "
    "cannot be converted."
)


def sha256_of(files: list[Path]) -> str:
    """SHA-256 of a file; of several, of the list of their digests and names."""
    digests = [file_digest(file) for file in sorted(files)]
    if len(digests) == 1:
        return digests[0]
    rows = [f"{d}  {f.name}\n" for d, f in zip(digests, sorted(files), strict=True)]
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def unknown_family(
    settings: Mapping[str, Any], origin: str, missing: Sequence[str]
) -> ConversionError:
    """The error of a decoder of a family that is not known.

    Args:
        settings: its configuration.
        origin: name for messages.
        missing: what it has that nothing here computes.
    """
    kind = settings.get("model_type")
    why = f": it has {' and '.join(missing)}, which nothing here computes" if missing else ""
    return ConversionError(
        f"{origin}: model_type is {str(kind)[:80]!r}, which cannot be converted{why}.",
        f"{nearest(kind)}{SUPPORTED}",
    )


def refuse_unlike_others(config: Any, origin: str) -> None:
    """Refuse what changes any decoder's mathematics in a way that nobody knows.

    Args:
        config: of transformers.
        origin: name for error messages.

    Raises:
        ConversionError: names it.
    """
    if getattr(config, "quantization_config", None):
        what = "the weights are quantized (quantization_config)"
        raise ConversionError(f"{origin}: {what}.", SUPPORTED)
    if getattr(config, "is_heterogeneous", False):
        what = "its layers differ from each other (per_layer_config)"
        raise ConversionError(f"{origin}: {what}.", SUPPORTED)
    if (field := unknown_field(config)) is not None:
        raise ConversionError(f"{origin}: {field}.", _DELETE)


def backbone_options(config: Any, origin: str) -> dict[str, Any]:
    """The fields of ``AllMemConfig`` that a transformers configuration determines.

    Args:
        config: of one of ``FAMILIES``.
        origin: name for error messages.

    Raises:
        ConversionError: something in it has no counterpart here; names it and what is supported.
    """

    def refuse(what: str) -> ConversionError:
        return ConversionError(f"{origin}: {what}.", SUPPORTED)

    family = FAMILIES.get(config.model_type)
    if family is None:
        settings = config.to_dict()
        raise unknown_family(settings, origin, parts_missing(settings))
    refuse_unlike_others(config, origin)
    kinds = getattr(config, "layer_types", None) or ()
    if odd := set(kinds) - {"full_attention", "sliding_attention"}:
        raise refuse(f"some layers have {', '.join(sorted(odd))} (layer_types)")
    local = [layer for layer, kind in enumerate(kinds) if kind == "sliding_attention"]
    window = getattr(config, "sliding_window", None)
    if local and window is None:
        raise refuse("layers have sliding_attention (layer_types), and sliding_window is missing")
    rope, local_rope = _ropes(config)
    for one in (rope, local_rope or rope):
        if one.get("rope_type") not in _KINDS:
            raise refuse(f"its rope is of the kind {one.get('rope_type')!r}")
        if (setting := unknown_rope_setting(one)) is not None:
            raise refuse(f"its rope has {setting}, which is not understood")
        if one.get("partial_rotary_factor", 1.0) != 1.0 and not family.partial_rotary:
            # transformers reads the factor in some rope kinds of these families and not in others,
            # so that nobody can say which model was trained.
            raise refuse(f"partial_rotary_factor is {one['partial_rotary_factor']}")
    named = {key: getattr(config, family.named.get(key, key)) for key in _NAMED}
    if named["hidden_act"] not in ACTIVATIONS:
        raise refuse(f"hidden_act is {named['hidden_act']!r} (known are {', '.join(ACTIVATIONS)})")
    head_dim = getattr(config, "head_dim", None)
    options: dict[str, Any] = {
        "backbone": config.model_type,
        "head_dim": head_dim or config.hidden_size // config.num_attention_heads,
        "rope_parameters": rope,
        "attention_bias": not family.input_bias and bool(getattr(config, "attention_bias", False)),
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
    }
    options |= named
    if len(local) == config.num_hidden_layers:
        options["trained_window"] = window
    elif local:
        options |= {"local_layers": local, "local_window": window}
        options |= {"local_rope_parameters": local_rope} if local_rope else {}
    try:
        return options | family.options(config)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise refuse(
            f"config.json says what cannot be meant or has no part here ({error})"
        ) from None


def _ropes(config: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The rope of a model, and that of its layers with windows where it differs."""
    rope = dict(config.rope_parameters or {})
    if not LAYER_KINDS & rope.keys():
        return _given(rope), None
    kinds = set(getattr(config, "layer_types", None) or ())
    by_kind = {kind: _given(rope.get(kind) or {}) for kind in LAYER_KINDS}
    if "full_attention" not in kinds:
        return by_kind["sliding_attention"], None
    local = by_kind["sliding_attention"]
    same = "sliding_attention" not in kinds or local == by_kind["full_attention"]
    return by_kind["full_attention"], None if same else local


def _given(rope: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a rope that are not null, which stands for those that are not there."""
    return {name: value for name, value in rope.items() if value is not None}
