"""What a decoder of an unknown family has that nothing here can compute, as far as can be told."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from allmem_exporters.model.families import FAMILIES

_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("vision_config", "audio_config"), "a part that sees or hears"),
    (("is_encoder_decoder",), "an encoder"),
    (
        ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size"),
        "a mixture of experts",
    ),
    (
        ("ssm_state_size", "state_size", "mamba_d_state", "linear_num_key_heads", "lru_width"),
        "layers with a state of their own in place of attention",
    ),
)
"""Fields of a configuration, and what a decoder has in which one of them is not empty."""

PARTS = "several parts, each with a configuration of its own"
"""Such a configuration could name any class of transformers, and what that one fetches."""


def parts_missing(settings: Mapping[str, Any]) -> list[str]:
    """Parts of a decoder that nothing here can compute.

    Args:
        settings: its configuration.
    """
    return [what for names, what in _SIGNS if any(settings.get(name) for name in names)]


def nearest(kind: object) -> str:
    """The known families whose names are most like this one, for a hint; empty if none is."""
    close = difflib.get_close_matches(str(kind), FAMILIES, n=2, cutoff=0.6)
    return f"Nearest by name: {', '.join(close)}. " if close else ""
