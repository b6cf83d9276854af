"""Tiny random decoders of transformers, of families that go the generic path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_FULL = {"layer_types": ["full_attention"] * 2, "sliding_window": 200}
_NARROW = {"head_dim": 12}

GENERIC: dict[str, dict[str, Any]] = {
    "apertus": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "arcee": {},
    "bitnet": {},
    "cwm": {
        **_FULL,
        **_NARROW,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "ernie4_5": _NARROW,
    "gpt_neox": {},
    "granite_swa": _FULL,
    "hyperclovax": {},
    "internlm3": _NARROW,
    "jais2": {},
    "lfm2": {},
    "ministral": {**_FULL, **_NARROW},
    "minicpm3": {"num_key_value_heads": 4},
    "nanochat": {},
    "nemotron": {},
    "olmo": {},
    "persimmon": {},
    "phi": {},
    "stablelm": {"partial_rotary_factor": 0.5},
    "starcoder2": {"sliding_window": 200},
}
"""What differs from ``SIZES`` in each family's configuration, by its name."""

PACKED: dict[str, dict[str, Any]] = {
    "cohere": {},
    "cohere2": _FULL,
    "exaone4": {**_FULL, "sliding_window": None, "sliding_window_pattern": None},
    "gemma": _NARROW,
    "gemma2": {**_FULL, **_NARROW},
    "gemma3_text": {**_FULL, **_NARROW},
    "glm": _NARROW,
    "glm4": _NARROW,
    "helium": _NARROW,
    "olmo2": {},
    "olmo3": _FULL,
    "granite": {},
    "llama": {},
    "mistral": {"sliding_window": 200},
    "phi3": {"sliding_window": 200},
    "qwen2": {},
    "qwen3": _NARROW,
    "seed_oss": _NARROW,
    "smollm3": {},
}
"""The same of families on the packed path."""


def tiny_decoder(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A decoder whose weights are large enough that attention is far from uniform.

    Args:
        kind: its ``model_type``.
        seed: of the weights.
        changes: fields of its configuration.
    """
    torch.manual_seed(seed)
    own = GENERIC.get(kind, PACKED.get(kind, {}))
    config = CONFIG_MAPPING[kind](**{**SIZES, **own, **changes})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.25)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def write_tiny_decoder(folder: Path, kind: str, **changes: Any) -> PreTrainedModel:
    """Save a tiny decoder with a byte-level tokenizer; returns the decoder."""
    model = tiny_decoder(kind, **changes)
    model.save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:92]
    tokens = ["<|endoftext|>", "<|start|>", "<|end|>", *letters, "th", "12"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h"), ("1", "2")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return model
