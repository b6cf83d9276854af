"""Whose steps on a CUDA device may be captured as CUDA graphs."""

from __future__ import annotations

_LOOKED_AT = frozenset(
    {"granite", "llama", "mistral", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3"}
)
"""Families whose captured step was seen to read nothing of the host. In others a split or a join of
unequal parts may pass its sizes through host memory, which is given back after the capture: replays
would read what then lies there."""


def may_be_captured(family: str) -> bool:
    """Whether the step of a model may be captured; where not, every token is launched anew.

    Args:
        family: transformers' ``model_type`` of the decoder.
    """
    return family in _LOOKED_AT
