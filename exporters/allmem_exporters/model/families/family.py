"""What one family of pretrained decoders has that another may lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def _nothing(config: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    Attributes:
        model_type: its name in transformers' configurations and in AllMem's (``backbone``).
        title: its name for people.
        input_bias: queries, keys and values always have biases, and the output never;
            otherwise ``attention_bias`` says it of all four.
        mlp_bias: ``mlp_bias`` may be true.
        head_norms: each query and key head has an RMSNorm of its own.
        partial_rotary: some coordinates of a head may be left unturned.
        gguf: GGUF files of the architecture of this name can be read.
        gguf_pairs: llama.cpp reorders the rows of queries and keys, so that neighboring coordinates
            rotate together.
        fields: of its configuration, beside those that all families have; ``options`` reads them,
            or they have no effect.
        options: makes fields of ``AllMemConfig`` of its configuration. A ValueError says what has
            no counterpart.
        packed: matrices of a layer that hold the rows of several of ours, in their order.
    """

    model_type: str
    title: str
    input_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    partial_rotary: bool = False
    gguf: bool = False
    gguf_pairs: bool = False
    fields: frozenset[str] = frozenset()
    options: Callable[[Any], dict[str, Any]] = _nothing
    packed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
