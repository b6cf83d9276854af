"""What one family of pretrained decoders has that another may lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


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
        output_bias: ``attention_bias`` goes for the output as well.
        mlp_bias: ``mlp_bias`` may be true.
        norms: where a layer's norms stand: ``before`` each branch; ``around`` it, before and
            behind; ``behind`` it, while it reads the stream as it is; or ``parallel``: one norm
            for both branches, which read the same and are added together.
        centered: norms subtract the mean (LayerNorm without a bias).
        unit_gain: norms multiply by 1 + their weight.
        head_norms: each query and key head has an RMSNorm of its own.
        whole_norms: all query heads together have an RMSNorm, and all key heads.
        partial_rotary: some coordinates of a head may be left unturned.
        pairs: neighboring coordinates rotate together. Rows of queries and keys are reordered, so
            that coordinate j turns with coordinate j + rotary_half as in all other families.
        fields: of its configuration, beside those that all families have; ``options`` reads them,
            or they have no effect.
        options: makes fields of ``AllMemConfig`` of its configuration. A ValueError says what has
            no counterpart.
        packed: matrices of a layer that hold the rows of several of ours, in their order.
        renamed: parts of a layer that have another name here, by their own.
        named: fields of its configuration that have another name, by that of other families.
    """

    model_type: str
    title: str
    input_bias: bool = False
    output_bias: bool = True
    mlp_bias: bool = False
    norms: Literal["before", "around", "behind", "parallel"] = "before"
    centered: bool = False
    unit_gain: bool = False
    head_norms: bool = False
    whole_norms: bool = False
    partial_rotary: bool = False
    pairs: bool = False
    fields: frozenset[str] = frozenset()
    options: Callable[[Any], dict[str, Any]] = _nothing
    packed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
