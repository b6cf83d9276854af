"""AllMemConfig: the decoder's sizes and the memory's options, and what follows from them.

Which values are allowed, ``config_bounds`` and ``config_relations`` say; they are checked when they
are set.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig

from allmem_exporters.model.config_bounds import check_fields, check_whole, refuse_misspelt
from allmem_exporters.model.config_relations import check_relations, check_windows
from allmem_exporters.model.families import FAMILIES, Family
from allmem_exporters.model.rope_options import check_rope, rotary_dim

_FOLLOWS: Any = None
"""Default of a size that follows from others: it is filled in at once, so nobody reads the None."""


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
        refuse_misspelt(self, kwargs)
        for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
            check_whole(key, getattr(self, key))
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        check_whole("num_key_value_heads", self.num_key_value_heads)
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.windows is not None:
            check_windows(self)
            self.window = max(max(layer) for layer in self.windows)
        if self.mem_heads is None:
            self.mem_heads = self.num_key_value_heads
        check_whole("mem_heads", self.mem_heads)
        if self.mem_width is None:
            self.mem_width = default_memory_width(self.mem_heads)
        check_rope(self.rope_parameters)
        # super() standardizes this dictionary in place; the caller's must stay as it is.
        self.rope_parameters = dict(self.rope_parameters) if self.rope_parameters else _FOLLOWS
        super().__post_init__(**kwargs)
        self.check()

    def check(self) -> None:
        """Check every field and the relations between them.

        Raises:
            ConfigError: names the key, the value and what is allowed.
        """
        check_fields(self)
        check_relations(self)

    @property
    def rotary_dim(self) -> int:
        """Coordinates of a head that are rotated."""
        return rotary_dim(self.head_dim, self.rope_parameters)

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

    @property
    def sink_logits(self) -> bool:
        """Whether attentions have a learned logit for each head; no packed family does."""
        return False

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
