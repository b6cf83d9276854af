"""Whose steps on a CUDA device may be captured as CUDA graphs."""

from __future__ import annotations

from allmem_runtime.config import Manifest

LOOKED_AT = frozenset(
    {"granite", "llama", "mistral", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3"}
)
"""Families of which every export may be captured, even one whose manifest does not say so: their
captured step was seen to read nothing of the host."""


def may_be_captured(manifest: Manifest) -> bool:
    """Whether the step of a model may be captured; where not, every token is launched anew.

    Args:
        manifest: of the model; its export looked at every node.
    """
    if manifest.captured is not None:
        return manifest.captured
    return manifest.backbone.model_type in LOOKED_AT
