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
    (("kv_lora_rank",), "compressed keys and values"),
    (("attn_logit_softcapping", "final_logit_softcapping"), "softcaps of scores or logits"),
    (
        ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
        "LayerNorm in place of RMSNorm",
    ),
    (("use_parallel_residual", "parallel_attn"), "branches side by side"),
    (("alibi", "position_embedding_type"), "positions without rope"),
)
"""Fields of a configuration, and what a decoder has in which one of them is not empty."""

_BEHIND = "norms behind attention and feed-forward network"
_NEIGHBORS = "neighboring coordinates that rotate together"
_OF_NAME = {
    "gemma": ("gains of norms that 1 is added to",),
    "gemma2": ("gains of norms that 1 is added to", _BEHIND),
    "gemma3_text": ("gains of norms that 1 is added to", _BEHIND, "windows that differ by layer"),
    "olmo2": (_BEHIND, "norms over all heads together"),
    "olmo3": (_BEHIND, "norms over all heads together", "windows that differ by layer"),
    "exaone4": (_BEHIND, "windows that differ by layer"),
    "glm": (_NEIGHBORS,),
    "glm4": (_BEHIND, _NEIGHBORS),
    "cohere": (_NEIGHBORS,),
    "cohere2": (_NEIGHBORS, "windows that differ by layer"),
    "ernie4_5": (_NEIGHBORS,),
    "helium": (_NEIGHBORS,),
    "hunyuan_v1_dense": ("norms behind the rope",),
    "arcee": ("a feed-forward network without a gate",),
    "apertus": ("a feed-forward network without a gate",),
}
"""Parts that no field of a configuration tells, by ``model_type``."""


def parts_missing(settings: Mapping[str, Any]) -> list[str]:
    """Parts of a decoder that nothing here can compute.

    Args:
        settings: its configuration.
    """
    kind = settings.get("model_type")
    found = [what for names, what in _SIGNS if any(settings.get(name) for name in names)]
    return [*found, *(_OF_NAME.get(kind, ()) if isinstance(kind, str) else ())]


def nearest(kind: object) -> str:
    """The known families whose names are most like this one, for a hint; empty if none is."""
    close = difflib.get_close_matches(str(kind), FAMILIES, n=2, cutoff=0.6)
    return f"Nearest by name: {', '.join(close)}. " if close else ""
