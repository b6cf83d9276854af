"""Which fields of ``AllMemConfig`` must fit together, and how."""

from __future__ import annotations

from typing import Any

from allmem_exporters.errors import ConfigError
from allmem_exporters.model.config_bounds import WHOLE
from allmem_exporters.model.rope_options import FACTORS, check_rope, rotary_dim
from allmem_runtime.config import BOUNDS
from allmem_runtime.strict_json import is_whole

Config = Any
"""An ``AllMemConfig``, which imports this file."""


def check_relations(config: Config) -> None:
    """Check what the fields of a configuration, each of which is allowed, say together.

    Raises:
        ConfigError: names the keys, the values and what is allowed.
    """
    if config.num_attention_heads % config.num_key_value_heads:
        raise ConfigError(
            f"num_attention_heads is {config.num_attention_heads}; it must be a multiple of "
            f"num_key_value_heads, {config.num_key_value_heads}."
        )
    if config.mem_width % config.mem_heads:
        raise ConfigError(
            f"mem_width is {config.mem_width}; it must be a multiple of mem_heads, "
            f"{config.mem_heads}."
        )
    if config.mem_hidden < 1:
        raise ConfigError(
            f"mem_hidden_mult is {config.mem_hidden_mult}; with heads of {config.mem_head_dim} it "
            "leaves the memory no hidden units."
        )
    if config.mem_hidden > (most := BOUNDS["memory.hidden"][1]):
        raise ConfigError(
            f"mem_hidden_mult is {config.mem_hidden_mult}; it gives the memory "
            f"{config.mem_hidden} hidden units, and {most} are allowed."
        )
    if config.windows is not None:
        check_windows(config)
    if config.chunk > config.shortest_window:
        raise ConfigError(
            f"chunk is {config.chunk}; it must be at most window, {config.shortest_window}, or "
            "some tokens would be seen neither by the window nor by the memory."
        )
    _check_family(config)
    _check_layers(config)
    _check_local(config)
    if config.trained_window is not None:
        low, high = 1, BOUNDS["trained_context"][1]
        if not is_whole(config.trained_window, low, high):
            raise ConfigError(
                f"trained_window is {config.trained_window!r}; it must be an integer {low} to "
                f"{high}."
            )
        if config.window > config.trained_window:
            raise ConfigError(
                f"window is {config.window}; the model was trained with a window of "
                f"{config.trained_window}, so it must be at most that."
            )
    _check_rope(config)


def _check_family(config: Config) -> None:
    if config.family.input_bias and config.attention_bias:
        raise ConfigError(
            f"attention_bias is True; a {config.backbone} decoder always has biases on queries, "
            "keys and values and never on the output, so it must be false."
        )
    if config.mlp_bias and not config.family.mlp_bias:
        raise ConfigError(f"mlp_bias is True; a {config.backbone} decoder has no such biases.")


def _check_layers(config: Config) -> None:
    last = config.num_hidden_layers - 1
    for key in ("unrotated_layers", "local_layers"):
        layers = getattr(config, key)
        if layers is not None and not (
            isinstance(layers, list) and all(is_whole(layer, 0, last) for layer in layers)
        ):
            raise ConfigError(f"{key} is {layers!r}; it must list layers 0 to {last}.")


def _check_local(config: Config) -> None:
    if (config.local_layers is None) != (config.local_window is None):
        raise ConfigError("local_layers and local_window go together; one is missing.")
    if config.local_window is None:
        return
    low, high = WHOLE["window"]
    if not is_whole(config.local_window, low, high):
        raise ConfigError(
            f"local_window is {config.local_window!r}; it must be an integer {low} to {high}."
        )
    if config.windows is not None:
        raise ConfigError(
            "windows do not go with local_layers, which keep the window they were trained with."
        )
    if config.local_rope_parameters is not None:
        check_rope(config.local_rope_parameters, "local_rope_parameters")
        if rotary_dim(config.head_dim, config.local_rope_parameters) != config.rotary_dim:
            raise ConfigError(
                "local_rope_parameters.partial_rotary_factor differs from that of rope_parameters."
            )


def _check_rope(config: Config) -> None:
    rope = config.rope_parameters or {}
    check_rope(rope)
    if config.unrotated_layers and rope.get("rope_type") == "yarn":
        raise ConfigError("unrotated_layers do not go with a rope of the kind 'yarn'.")
    factor = rope.get("partial_rotary_factor", 1.0)
    if not 0.0 < factor <= 1.0 or int(config.head_dim * factor) % 2 or config.rotary_dim < 2:
        raise ConfigError(
            f"rope_parameters.partial_rotary_factor is {factor!r}; of head_dim {config.head_dim} "
            "it must select an even number of at least 2 coordinates."
        )
    factors = rope.get(FACTORS)
    if factors is not None and len(factors) != config.rotary_dim // 2:
        raise ConfigError(
            f"rope_parameters.{FACTORS} has {len(factors)} numbers; there must be one for each "
            f"of {config.rotary_dim // 2} rotated pairs."
        )


def check_windows(config: Config) -> None:
    """Check the windows by layer and head, once the counts of both are known.

    Raises:
        ConfigError: says what they must be.
    """
    low, high = WHOLE["window"]
    layers, heads = config.num_hidden_layers, config.num_key_value_heads
    fits = isinstance(config.windows, list) and len(config.windows) == layers
    for layer in config.windows if fits and config.windows else ():
        fits &= isinstance(layer, list) and len(layer) == heads
        fits = fits and all(type(window) is int and low <= window <= high for window in layer)
    if not fits:
        raise ConfigError(
            f"windows must be {heads} integers of {low} to {high} for each of {layers} layers, "
            "one for each key/value head."
        )
