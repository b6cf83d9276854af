"""AllMemConfig: the decoder's sizes and the memory's options, checked when they are set.

It knows which values are allowed; it does not know what the operators do with them.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig

from allmem_exporters.errors import ConfigError
from allmem_exporters.model.families import FAMILIES, Family
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.rope_options import FACTORS, LAYER_KINDS, check_rope
from allmem_runtime.config import BOUNDS
from allmem_runtime.options import declared_options
from allmem_runtime.strict_json import is_number, is_whole

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")

_OURS = ("mem_", "sink", "window", "chunk", "lr_", "conv_", "inner_", "norm_s", "grad_at", "grad_c",
         "theta_", "qk_", "v_norm", "out_", "cache_", "backbone")  # fmt: skip
"""Prefixes that belong to this project: an unknown key that starts so is a misspelling."""


_CHOICES: dict[str, tuple[str, ...]] = {
    "backbone": tuple(FAMILIES),
    "hidden_act": ACTIVATIONS,
    **{o.name: o.declared.choices for o in declared_options(MemoryOptions) if o.declared.choices},
}

_WHOLE: dict[str, tuple[int, int]] = {
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

_FOLLOWS: Any = None
"""Default of a size that follows from others: it is filled in at once, so nobody reads the None."""

_FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "mem_residual", "out_norm")


def check_whole(key: str, value: object) -> None:
    """Refuse a size that is no integer within its bounds.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    low, high = _WHOLE[key]
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


def rotary_dim(config: AllMemConfig, rope: dict[str, Any] | None) -> int:
    """Coordinates of a head that a rope of these settings rotates."""
    return int(config.head_dim * (rope or {}).get("partial_rotary_factor", 1.0))


def default_memory_width(heads: int) -> int:
    """Total width of the memory: 512 where that gives sane heads, else 64 a head.

    512 is the published width; with 3 heads it does not divide and with one or two hundred heads
    its heads would be too narrow to hold anything.
    """
    return 512 if 512 % heads == 0 and 32 <= 512 // heads <= 256 else 64 * heads


class AllMemConfig(PretrainedConfig):
    """Configuration of a pretrained decoder with a window, sinks and a neural memory.

    The decoder's fields bear the names that transformers gives them, and ``backbone`` is its
    family. ``embedding_scale``, ``residual_scale`` and ``logits_scale`` multiply embedded tokens,
    what each branch adds, and logits; ``attention_scale`` the products of queries and keys, None
    being one over the root of ``head_dim``. ``attention_softcap`` c makes c tanh(s / c) of each
    such product s, and ``logits_softcap`` of each logit. Positions turn nothing in
    ``unrotated_layers``, and ``trained_window`` is what all layers saw in training, if that was a
    window. ``local_layers`` keep the ``local_window`` that they were trained with, without sinks,
    and turn by ``local_rope_parameters`` where the others' rope is not theirs.

    The fields of window and memory are those of ``MemoryOptions``, which says what each
    does; here they have their defaults and ranges. ``mem_width`` of None is
    ``default_memory_width``, ``mem_heads`` of None the number of key/value heads. ``windows`` are
    those of each layer's key/value heads where they differ; ``window`` then is the longest.

    Raises:
        ConfigError: a value is outside its range, or a key is unknown; names key, value, range.

    Source: arXiv 2602.13680; what the paper leaves open is documented in ``docs``.
    """

    model_type = "allmem"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["state"]
    any_backbone: ClassVar[bool] = False
    """Whether the decoder may be of a family that is not known."""

    backbone: str = "llama"
    vocab_size: int = 49152
    hidden_size: int = 576
    intermediate_size: int = 1536
    num_hidden_layers: int = 30
    num_attention_heads: int = 9
    num_key_value_heads: int = _FOLLOWS
    head_dim: int = _FOLLOWS
    hidden_act: str = "silu"
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    rope_parameters: dict[str, Any] = _FOLLOWS
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    residual_scale: float = 1.0
    logits_scale: float = 1.0
    attention_softcap: float | None = None
    logits_softcap: float | None = None
    unrotated_layers: list[int] | None = None
    trained_window: int | None = None
    local_layers: list[int] | None = None
    local_window: int | None = None
    local_rope_parameters: dict[str, Any] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    mem_width: int = _FOLLOWS
    mem_heads: int = _FOLLOWS
    mem_hidden_mult: float = 2.0
    mem_residual: bool = True
    mem_epsilon: float = 1e-6
    inner_loss: str = "neg_dot"
    norm_schedule: str = "read_norm_write"
    grad_at: str = "normalized"
    lr_groups: str = "three_per_head"
    lr_reduce: str = "sum"
    lr_init: float = 1e-4
    theta_rel: float = 0.1
    conv_kernel: int = 4
    conv_act: str = "silu"
    qk_norm: str = "rms_l2"
    v_norm: str = "none"
    out_norm: bool = True
    out_gate: str = "sigmoid"
    window: int = 1024
    sinks: int = 64
    sink_rope: str = "clamped"
    chunk: int = 512
    cache_dtype: str = "float16"
    windows: list[list[int]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, then check everything."""
        self._reject_misspelt(kwargs)
        for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
            self._whole(key)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        self._whole("num_key_value_heads")
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.windows is not None:
            self._check_windows()
            self.window = max(max(layer) for layer in self.windows)
        if self.mem_heads is None:
            self.mem_heads = self.num_key_value_heads
        self._whole("mem_heads")
        if self.mem_width is None:
            self.mem_width = default_memory_width(self.mem_heads)
        check_rope(self.rope_parameters)
        # super() standardizes this dictionary in place; the caller's must stay as it is.
        self.rope_parameters = dict(self.rope_parameters) if self.rope_parameters else _FOLLOWS
        super().__post_init__(**kwargs)
        self.check()

    def _reject_misspelt(self, unknown: dict[str, Any]) -> None:
        fields = [field.name for field in dataclasses.fields(self)]
        for key, value in unknown.items():
            close = difflib.get_close_matches(key, fields, n=1, cutoff=0.85)
            if close or key.startswith(_OURS):
                advice = f"did you mean {close[0]!r}?" if close else "AllMemConfig lists them."
                raise ConfigError(f"Unknown model option {key!r} (value {value!r});", advice)

    def _whole(self, key: str) -> None:
        check_whole(key, getattr(self, key))

    def _check_windows(self) -> None:
        low, high = _WHOLE["window"]
        layers, heads = self.num_hidden_layers, self.num_key_value_heads
        fits = isinstance(self.windows, list) and len(self.windows) == layers
        for layer in self.windows if fits and self.windows else ():
            fits &= isinstance(layer, list) and len(layer) == heads
            fits = fits and all(type(window) is int and low <= window <= high for window in layer)
        if not fits:
            raise ConfigError(
                f"windows must be {heads} integers of {low} to {high} for each of {layers} layers, "
                "one for each key/value head."
            )

    def check(self) -> None:
        """Check every field and the relations between them.

        Raises:
            ConfigError: names the key, the value and what is allowed.
        """
        for key, choices in _CHOICES.items():
            if key == "backbone" and self.any_backbone:
                continue
            value = getattr(self, key)
            if value not in choices:
                raise ConfigError(f"{key} is {value!r}; allowed: {', '.join(choices)}.")
        for key in _WHOLE:
            self._whole(key)
        for key, (low, high) in _NUMBERS.items():
            value = getattr(self, key)
            if value is None and key in _MAY_BE_NONE:
                continue
            if not is_number(value, low, high):
                raise ConfigError(f"{key} is {value!r}; it must be a number {low:g} to {high:g}.")
        for key in _FLAGS:
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"{key} is {getattr(self, key)!r}; it must be true or false.")
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, key)
            several = value if key == "eos_token_id" and isinstance(value, list) else [value]
            if len(several) > 64 or not all(v is None or is_whole(v, -1, 1 << 32) for v in several):
                raise ConfigError(f"{key} is {value!r}; it must be a token's id.")
        self._check_relations()
        self._check_rope()

    def _check_relations(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads is {self.num_attention_heads}; it must be a multiple of "
                f"num_key_value_heads, {self.num_key_value_heads}."
            )
        if self.mem_width % self.mem_heads:
            raise ConfigError(
                f"mem_width is {self.mem_width}; it must be a multiple of mem_heads, "
                f"{self.mem_heads}."
            )
        if self.mem_hidden < 1:
            raise ConfigError(
                f"mem_hidden_mult is {self.mem_hidden_mult}; with heads of {self.mem_head_dim} it "
                "leaves the memory no hidden units."
            )
        if self.mem_hidden > (most := BOUNDS["memory.hidden"][1]):
            raise ConfigError(
                f"mem_hidden_mult is {self.mem_hidden_mult}; it gives the memory "
                f"{self.mem_hidden} hidden units, and {most} are allowed."
            )
        if self.windows is not None:
            self._check_windows()
        if self.chunk > self.shortest_window:
            raise ConfigError(
                f"chunk is {self.chunk}; it must be at most window, {self.shortest_window}, or "
                "some tokens would be seen neither by the window nor by the memory."
            )
        if self.family.input_bias and self.attention_bias:
            raise ConfigError(
                f"attention_bias is True; a {self.backbone} decoder always has biases on queries, "
                "keys and values and never on the output, so it must be false."
            )
        if self.mlp_bias and not self.family.mlp_bias:
            raise ConfigError(f"mlp_bias is True; a {self.backbone} decoder has no such biases.")
        last = self.num_hidden_layers - 1
        for key in ("unrotated_layers", "local_layers"):
            layers = getattr(self, key)
            if layers is not None and not (
                isinstance(layers, list) and all(is_whole(layer, 0, last) for layer in layers)
            ):
                raise ConfigError(f"{key} is {layers!r}; it must list layers 0 to {last}.")
        self._check_local()
        if self.trained_window is not None:
            low, high = 1, BOUNDS["trained_context"][1]
            if not is_whole(self.trained_window, low, high):
                raise ConfigError(
                    f"trained_window is {self.trained_window!r}; it must be an integer {low} to "
                    f"{high}."
                )
            if self.window > self.trained_window:
                raise ConfigError(
                    f"window is {self.window}; the model was trained with a window of "
                    f"{self.trained_window}, so it must be at most that."
                )

    def _check_local(self) -> None:
        if (self.local_layers is None) != (self.local_window is None):
            raise ConfigError("local_layers and local_window go together; one is missing.")
        if self.local_window is None:
            return
        low, high = _WHOLE["window"]
        if not is_whole(self.local_window, low, high):
            raise ConfigError(
                f"local_window is {self.local_window!r}; it must be an integer {low} to {high}."
            )
        if self.windows is not None:
            raise ConfigError(
                "windows do not go with local_layers, which keep the window they were trained with."
            )
        if self.local_rope_parameters is not None:
            check_rope(self.local_rope_parameters, "local_rope_parameters")
            if rotary_dim(self, self.local_rope_parameters) != self.rotary_dim:
                raise ConfigError(
                    "local_rope_parameters.partial_rotary_factor differs from that of "
                    "rope_parameters."
                )

    def _check_rope(self) -> None:
        rope = self.rope_parameters or {}
        check_rope(rope)
        if self.unrotated_layers and rope.get("rope_type") == "yarn":
            raise ConfigError("unrotated_layers do not go with a rope of the kind 'yarn'.")
        factor = rope.get("partial_rotary_factor", 1.0)
        if not 0.0 < factor <= 1.0 or int(self.head_dim * factor) % 2 or self.rotary_dim < 2:
            raise ConfigError(
                f"rope_parameters.partial_rotary_factor is {factor!r}; of head_dim {self.head_dim} "
                "it must select an even number of at least 2 coordinates."
            )
        factors = rope.get(FACTORS)
        if factors is not None and len(factors) != self.rotary_dim // 2:
            raise ConfigError(
                f"rope_parameters.{FACTORS} has {len(factors)} numbers; there must be one for each "
                f"of {self.rotary_dim // 2} rotated pairs."
            )

    @property
    def rotary_dim(self) -> int:
        """Coordinates of a head that are rotated."""
        return rotary_dim(self, self.rope_parameters)

    @property
    def mem_head_dim(self) -> int:
        """Width of one memory head."""
        return self.mem_width // self.mem_heads

    @property
    def mem_hidden(self) -> int:
        """Hidden units of one memory head."""
        return round(self.mem_hidden_mult * self.mem_head_dim)

    @property
    def family(self) -> Family:
        """What the decoder's family has."""
        return FAMILIES[self.backbone]

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have biases."""
        return self.family.input_bias or self.attention_bias

    @property
    def output_bias(self) -> bool:
        """Whether the product behind attention has a bias."""
        return self.attention_bias and self.family.output_bias

    @property
    def head_norms(self) -> bool:
        """Whether each query and key head has an RMSNorm of its own."""
        return self.family.head_norms

    @property
    def head_scale(self) -> float:
        """What the last norm is multiplied with: of logits that are capped, in parts of the cap."""
        return self.logits_scale / (self.logits_softcap or 1.0)

    @property
    def shortest_window(self) -> int:
        """The least that a head sees."""
        least = min((min(layer) for layer in self.windows or ()), default=self.window)
        return min(least, self.local_window or least)

    def rotates(self, layer: int) -> bool:
        """Whether positions turn the queries and keys of a layer."""
        return layer not in (self.unrotated_layers or ())

    def is_local(self, layer: int) -> bool:
        """Whether a layer keeps the window it was trained with."""
        return layer in (self.local_layers or ())

    def attention_attributes(self, layer: int, rope_amplitude: float) -> dict[str, Any]:
        """Attributes of a layer's operator SlidingWindowAttention."""
        window = tuple(self.windows[layer]) if self.windows else self.window
        local = self.is_local(layer)
        attributes = {
            "window": self.local_window if local else window,
            "sinks": 0 if local else self.sinks,
            "scale": float(self.attention_scale or self.head_dim**-0.5),
            "sink_rope": self.sink_rope,
            "rope_amplitude": rope_amplitude,
            "norm_epsilon": self.rms_norm_eps if self.head_norms else 0.0,
        }
        if self.attention_softcap is not None:
            attributes["softcap"] = float(self.attention_softcap)
        return attributes

    def memory_attributes(self) -> dict[str, Any]:
        """Attributes of the operator TTTMemory."""
        return {
            "chunk": self.chunk,
            "inner_loss": self.inner_loss,
            "norm_schedule": self.norm_schedule,
            "grad_at": self.grad_at,
            "clip": float(self.theta_rel),
            "lr_reduce": self.lr_reduce,
            "residual": int(self.mem_residual),
            "conv_activation": self.conv_act,
            "value_norm": self.v_norm,
            "out_norm": int(self.out_norm),
            "out_gate": self.out_gate,
            "epsilon": self.mem_epsilon,
        }


AutoConfig.register(AllMemConfig.model_type, AllMemConfig)
