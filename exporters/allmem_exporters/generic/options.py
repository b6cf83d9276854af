"""The fields of ``GenericConfig`` that a transformers configuration determines."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from allmem_exporters.generic.config import decoder_fields
from allmem_exporters.generic.interface import Unsupported
from allmem_exporters.generic.probe import probe


def generic_options(config: PretrainedConfig) -> dict[str, Any]:
    """What a decoder's configuration says, and what was found by running it.

    Args:
        config: of transformers.

    Raises:
        Unsupported: it has what cannot be computed here; says what.
    """
    sites = probe(config).sites
    first = sites[0]
    sizes = {(site.query_heads, site.kv_heads, site.head_dim) for site in sites}
    if len(sizes) > 1:
        raise Unsupported("layers with heads of several sizes")
    if len({site.window for site in sites}) > 1:
        raise Unsupported("windows that differ by layer")
    inner = getattr(config, "intermediate_size", None)
    return {
        "backbone": config.model_type,
        "decoder": decoder_fields(config),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": inner if isinstance(inner, int) else 4 * config.hidden_size,
        "num_hidden_layers": len(sites),
        "num_attention_heads": first.query_heads,
        "num_key_value_heads": first.kv_heads,
        "head_dim": first.head_dim,
        "max_position_embeddings": getattr(config, "max_position_embeddings", None) or 2048,
        "tie_word_embeddings": bool(getattr(config, "tie_word_embeddings", False)),
        "trained_window": first.window,
        "bos_token_id": getattr(config, "bos_token_id", None),
        "eos_token_id": getattr(config, "eos_token_id", None),
        "pad_token_id": getattr(config, "pad_token_id", None),
    }
