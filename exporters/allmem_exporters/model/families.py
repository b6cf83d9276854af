"""The families of pretrained decoders, and in what they differ: a new one is a row of this table.

All of them share one PyTorch model, whose parameters have the names that transformers gives them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """What one family has that another may lack.

    Attributes:
        title: its name for people.
        input_bias: queries, keys and values always have biases, and the output never;
            otherwise ``attention_bias`` says it of all four.
        mlp_bias: ``mlp_bias`` may be true.
        head_norms: each query and key head has an RMSNorm of its own.
        gguf_pairs: llama.cpp reorders the rows of queries and keys, so that neighboring coordinates
            rotate together.
    """

    title: str
    input_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    gguf_pairs: bool = False


FAMILIES = {
    "llama": Family("Llama", mlp_bias=True, gguf_pairs=True),
    "qwen2": Family("Qwen2", input_bias=True),
    "qwen3": Family("Qwen3", head_norms=True),
}
"""By ``model_type`` of transformers and ``general.architecture`` of GGUF."""


def titles() -> str:
    """All of them for people: ``Llama, Qwen2 or Qwen3``."""
    *first, last = (family.title for family in FAMILIES.values())
    return f"{', '.join(first)} or {last}"
