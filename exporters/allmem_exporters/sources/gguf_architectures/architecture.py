"""What one architecture of llama.cpp is in transformers, and what its converter changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from allmem_exporters.sources.gguf_described import Described

WHOLE_MODEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
"""Modules of a whole model, as most families of transformers name them."""
ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
"""Modules of a layer."""
GATED = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
BEHIND = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
"""Norms behind both branches."""
LLAMA = ATTENTION | GATED | {"ffn_norm": "post_attention_layernorm"}


def _nothing(described: Described) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture.

    Attributes:
        name: ``general.architecture`` of its files.
        model_type: of the configuration of transformers that its files are described by, unless
            ``options`` give another one.
        names: modules of a layer by the names of their tensors, in transformers.
        whole: the same of modules outside of layers.
        layers: where transformers keeps the layers.
        options: makes fields of the configuration of what the file says, beside those that all
            have. A ValueError says what has no counterpart.
        epsilon: the field for what is added to variances. Its name tells norms with a mean from
            those without: ``rms_norm_eps`` is ``attention.layer_norm_rms_epsilon``.
        reads: keys of its metadata that ``options`` reads, beside those that all have, or that
            say again what others do.
        only: keys with the values that change nothing here.
        partial: some coordinates of a head may be left unturned.
        turned: the converter reorders rows of queries and keys, so that neighboring coordinates
            rotate together where those half a head apart did.
        less_one: the converter adds 1 to the weights of norms.
        by_head: the converter puts the rows of all queries before those of all keys and values,
            where transformers has those of a head beside each other.
        windowed: ``options`` reads ``attention.sliding_window``; else it must be absent or 0.
    """

    name: str
    model_type: str
    names: Mapping[str, str] = field(default_factory=lambda: LLAMA)
    whole: Mapping[str, str] = field(default_factory=lambda: WHOLE_MODEL)
    layers: str = "model.layers"
    options: Callable[[Described], dict[str, Any]] = _nothing
    epsilon: str = "rms_norm_eps"
    reads: frozenset[str] = frozenset()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    partial: bool = False
    turned: bool = False
    less_one: bool = False
    by_head: bool = False
    windowed: bool = False

    @property
    def epsilon_key(self) -> str:
        """The key of its metadata for what is added to variances."""
        kind = "layer_norm_rms" if self.epsilon == "rms_norm_eps" else "layer_norm"
        return f"attention.{kind}_epsilon"
