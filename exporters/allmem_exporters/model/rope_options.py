"""The settings of a rotary embedding, checked before any library computes with them."""

from __future__ import annotations

from typing import Any

from allmem_exporters.errors import ConfigError
from allmem_runtime.config import BOUNDS
from allmem_runtime.strict_json import is_number, is_whole

FACTORS = "factors"
"""The kind whose frequencies are divided by numbers that the setting of this name lists."""
LAYER_KINDS = {"full_attention", "sliding_attention"}
"""Kinds of layers that may have a rope each, by transformers' names."""
ROPE_KINDS = ("default", "linear", "llama3", "yarn", FACTORS)

_NUMBERS: dict[str, tuple[float, float]] = {
    "rope_theta": (1.0, 1e15),
    "factor": (1.0, 1e6),
    "low_freq_factor": (1e-6, 1e6),
    "high_freq_factor": (1e-6, 1e6),
    "beta_fast": (1e-6, 1e6),
    "beta_slow": (1e-6, 1e6),
    "attention_factor": (1e-6, 1e6),
    "mscale": (0.0, 1e6),
    "mscale_all_dim": (0.0, 1e6),
    "partial_rotary_factor": (0.0, 1.0),
}
_LENGTH = "original_max_position_embeddings"
_NEEDED = {"linear": ("factor",), "yarn": ("factor",),
           "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
           FACTORS: (FACTORS,)}  # fmt: skip


def check_rope(rope: Any, name: str = "rope_parameters") -> None:
    """Check the settings of a rotary embedding as far as they are given.

    Args:
        rope: a table, or None.
        name: what it is called.

    Raises:
        ConfigError: names the setting, its value and what is allowed.
    """
    if rope is None:
        return
    if not isinstance(rope, dict):
        raise ConfigError(f"{name} is {rope!r}; it must be an object.")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_KINDS:
        raise ConfigError(
            f"{name}.rope_type is {kind!r}; allowed: {', '.join(ROPE_KINDS)}.",
            "Kinds whose frequencies depend on the length read so far cannot stream.",
        )
    for key in _NEEDED.get(kind, ()):
        if key not in rope:
            raise ConfigError(f"{name}.{key} is missing; the kind {kind!r} needs it.")
    for key in rope.keys() & _NUMBERS.keys():
        value, (low, high) = rope[key], _NUMBERS[key]
        if value is not None and not is_number(value, low, high):
            raise ConfigError(f"{name}.{key} is {value!r}; allowed are {low:g} to {high:g}.")
    if FACTORS in rope:
        _check_factors(rope[FACTORS], f"{name}.{FACTORS}")
    low_length, high_length = BOUNDS["trained_context"]
    if _LENGTH in rope and not is_whole(rope[_LENGTH], low_length, high_length):
        raise ConfigError(
            f"{name}.{_LENGTH} is {rope[_LENGTH]!r}; it must be an integer {low_length} to "
            f"{high_length}."
        )
    if any(rope.get(key) is None for key in _NEEDED.get(kind, ())):
        raise ConfigError(f"{name} has no number for one of {', '.join(_NEEDED[kind])}.")
    if kind == "llama3" and not rope["low_freq_factor"] < rope["high_freq_factor"]:
        raise ConfigError(
            f"{name}.low_freq_factor is {rope['low_freq_factor']!r}; it must be below "
            f"high_freq_factor, {rope['high_freq_factor']!r}."
        )


def _check_factors(factors: Any, name: str) -> None:
    high = BOUNDS["head_dim"][1] // 2
    fits = isinstance(factors, list) and 1 <= len(factors) <= high
    if not fits or not all(is_number(factor, 1e-6, 1e6) for factor in factors):
        raise ConfigError(f"{name} must be a list of 1 to {high} numbers from 1e-06 to 1e+06.")


def rotary_dim(head_dim: int, rope: dict[str, Any] | None) -> int:
    """Coordinates of a head that a rope of these settings rotates."""
    return int(head_dim * (rope or {}).get("partial_rotary_factor", 1.0))
