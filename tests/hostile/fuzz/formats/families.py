"""Pretrained decoders of newer families and of all kinds of transformers, as converted."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._pretrained import convert_into
from hostile.fuzz.formats._safetensors import mutated_tensors
from hostile.fuzz.mutate_json import mutated_json_bytes
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.families.tiny import SIZES, write_tiny_decoder

_LOCAL = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
FOLDERS = {
    "cohere": {}, "cohere2": _LOCAL, "exaone4": {**_LOCAL, "sliding_window_pattern": None},
    "gemma": {}, "gemma2": _LOCAL, "gemma3_text": _LOCAL, "glm": {}, "glm4": {}, "helium": {},
    "olmo2": {}, "olmo3": _LOCAL, "phi": {}, "gpt_neox": {}, "starcoder2": {},
    "stablelm": {}, "nemotron": {}, "minicpm3": {},
}  # fmt: skip
"""Kinds, and what differs from ``tiny``'s settings."""
_KINDS = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _make(folder: Path) -> None:
    for kind, changes in FOLDERS.items():
        write_tiny_decoder(folder / kind, kind, **changes)


def _mutate(files: Files, draw: Random) -> Files:
    kind = draw.choice(list(FOLDERS))
    name = f"{kind}/config.json"
    chance = draw.random()
    if chance < 0.08:
        weights = f"{kind}/model.safetensors"
        return {weights: mutated_tensors(files[weights], draw)}
    if chance < 0.3:
        return {name: mutated_json_bytes(_of_any_kind(draw), draw)}
    return {name: mutated_json_bytes(files[name], draw)}


def _of_any_kind(draw: Random) -> bytes:
    """A configuration of any decoder of transformers, with settings that its class knows."""
    kind = draw.choice(_KINDS)
    known = {name: None for name in getattr(CONFIG_MAPPING[kind], "__annotations__", {})}
    chosen = {name: draw.choice((0, 1, 8, True, None, "x", {}, [])) for name in known
              if draw.random() < 0.1}  # fmt: skip
    return json.dumps({**SIZES, "model_type": kind, **chosen}).encode()


def _reader(good: Path) -> Read:
    known = {kind: (good / kind / "config.json").read_bytes() for kind in FOLDERS}
    weights = {kind: (good / kind / "model.safetensors").read_bytes() for kind in FOLDERS}

    def read(folder: Path) -> None:
        changed = [
            kind for kind in FOLDERS
            if (folder / kind / "config.json").read_bytes() != known[kind]
            or (folder / kind / "model.safetensors").read_bytes() != weights[kind]
        ]  # fmt: skip
        for kind in changed or FOLDERS:
            convert_into(folder / kind, folder / "out")

    return read


FORMAT = Format("families", _make, _mutate, _reader, memory=1 << 31, seconds=30.0)
