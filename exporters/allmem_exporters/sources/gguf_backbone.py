"""The decoder that a GGUF file's metadata describes, by llama.cpp's conventions."""

from __future__ import annotations

from typing import Any

import numpy as np

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.families import Family
from allmem_exporters.sources.decoder import SUPPORTED
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.sources.gguf_metadata import Metadata

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor by which frequencies are divided, one number for each rotated pair."""


def backbone_of(metadata: Metadata, opened: GgufFile, family: Family) -> dict[str, Any]:
    """The fields of ``AllMemConfig`` that a file determines.

    Args:
        metadata: of the file.
        opened: the file.
        family: of its architecture.

    Raises:
        ConversionError: something in it has no counterpart here; names it.
    """
    shapes = {name: tensor.shape for name, tensor in opened.tensors.items()}
    if metadata.size("attention.sliding_window", 0, least=0):
        raise ConversionError(f"{metadata.name}: its attention is a sliding window.", SUPPORTED)
    heads = metadata.size("attention.head_count")
    hidden = metadata.size("embedding_length")
    head_dim = metadata.size("attention.key_length", hidden // heads)
    rotary = metadata.size("rope.dimension_count", head_dim)
    values = metadata.size("attention.value_length", head_dim)
    if rotary != head_dim or values != head_dim:
        raise ConversionError(
            f"{metadata.name}: heads of {head_dim} with {rotary} rotated coordinates and values of "
            f"{values} are not supported.",
            SUPPORTED,
        )
    vocabulary = shapes.get("token_embd.weight")
    if vocabulary is None:
        raise ConversionError(
            f"{metadata.name}: the weight token_embd.weight is missing.", "Fetch it again."
        )
    length = metadata.size("context_length")
    return {
        "backbone": metadata.architecture,
        "vocab_size": vocabulary[0],
        "hidden_size": hidden,
        "intermediate_size": metadata.size("feed_forward_length"),
        "num_hidden_layers": metadata.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": length,
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(metadata, opened, head_dim // 2, length),
        "attention_bias": not family.input_bias and "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
        "tie_word_embeddings": "output.weight" not in shapes,
        **special_tokens(metadata),
    }


def special_tokens(metadata: Metadata) -> dict[str, Any]:
    """Tokens that begin, end and fill up texts; every token that ends a turn ends an answer."""
    named = {"bos": "bos", "pad": "padding"}
    found: dict[str, Any] = {
        f"{key}_token_id": metadata.token(name)
        for key, name in named.items()
        if metadata.token(name) is not None
    }
    ends = [metadata.token(name) for name in ("eos", "eot", "eom")]
    known = list(dict.fromkeys(token for token in ends if token is not None))
    if known:
        found["eos_token_id"] = known[0] if len(known) == 1 else known
    return found


def _rope(metadata: Metadata, opened: GgufFile, pairs: int, length: int) -> dict[str, Any]:
    """How positions turn queries and keys.

    A factor without a kind is linear, and ``rope.scale_linear`` is its older name. A factor of 0
    or 1 scales nothing, and neither does the kind ``none``.
    """
    theta = metadata.number("rope.freq_base", 10000.0)
    kind = metadata.text(f"{metadata.architecture}.rope.scaling.type", "linear")
    older = metadata.number("rope.scale_linear", 0.0, least=0.0)
    factor = metadata.number("rope.scaling.factor", older, least=0.0) or 1.0
    scaled = factor != 1.0 and kind != "none"
    divided = ROPE_FACTORS in opened.tensors
    if kind not in ("none", "linear", "yarn") or (scaled and divided):
        told = f"{ROPE_FACTORS} and {kind}" if divided else f"rope.scaling.type {kind!r}"
        raise ConversionError(
            f"{metadata.name}: its rope is scaled in a way that is not known here ({told}).",
            "Convert the original safetensors checkpoint instead.",
        )
    if divided:
        factors = _factors(metadata, opened, pairs)
        return {"rope_type": "factors", "rope_theta": theta, "factors": factors}
    if not scaled:
        return {"rope_type": "default", "rope_theta": theta}
    rope = {"rope_type": kind, "rope_theta": theta, "factor": factor}
    if kind == "yarn":
        original = metadata.size("rope.scaling.original_context_length", length)
        rope["original_max_position_embeddings"] = original
    return rope


def _factors(metadata: Metadata, opened: GgufFile, pairs: int) -> list[float]:
    shape = opened.tensors[ROPE_FACTORS].shape
    if shape != (pairs,):
        raise ConversionError(
            f"{metadata.name}: {ROPE_FACTORS} has the shape {list(shape)}; heads with {pairs} "
            f"rotated pairs ask for [{pairs}].",
            "Fetch an intact copy.",
        )
    values = opened.values(ROPE_FACTORS, 0, pairs)
    if not np.isfinite(values).all() or (values <= 0).any():
        raise ConversionError(
            f"{metadata.name}: {ROPE_FACTORS} holds a value that is no number above 0.",
            "Fetch an intact copy.",
        )
    found: list[float] = values.tolist()
    return found
