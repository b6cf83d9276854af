"""Checkpoints around transformers' own code, and of layers with windows of their own."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._pretrained import convert_into
from hostile.fuzz.formats._safetensors import mutated_tensors
from hostile.fuzz.mutate_json import mutated_json_bytes

from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.names import weight_shapes
from allmem_exporters.generic.weights import open_weights
from allmem_exporters.model.weights import load_layer
from benchmarks.families.tiny import write_tiny_decoder

_LOCAL = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
FOLDERS = {"gpt_neox": {}, "phi": {}, "gemma3_text": _LOCAL, "olmo3": _LOCAL}


def _make(folder: Path) -> None:
    for kind, changes in FOLDERS.items():
        source = folder.parent / "sources" / kind
        write_tiny_decoder(source, kind, **changes)
        convert_into(source, folder / kind)


def _mutate(files: Files, draw: Random) -> Files:
    kind = draw.choice(list(FOLDERS))
    name = f"{kind}/config.json"
    if draw.random() < 0.1:
        weights = f"{kind}/model.safetensors"
        return {weights: mutated_tensors(files[weights], draw)}
    values = json.loads(files[name])
    if "decoder" in values and draw.random() < 0.6:
        inner = mutated_json_bytes(json.dumps(values.pop("decoder")).encode(), draw)
        outer = json.dumps(values).encode()
        return {name: outer[:-1] + b', "decoder": ' + inner + b"}"}
    return {name: mutated_json_bytes(files[name], draw)}


def _reader(good: Path) -> Read:
    known = {path: path.read_bytes() for path in good.rglob("*") if path.is_file()}

    def read(folder: Path) -> None:
        changed = {
            path.relative_to(good).parts[0] for path, data in known.items()
            if (folder / path.relative_to(good)).read_bytes() != data
        }  # fmt: skip
        for kind in changed or FOLDERS:
            weights = open_weights(folder / kind)
            config = weights.config
            if isinstance(config, GenericConfig):
                for name in weight_shapes(config):
                    weights.tensor(name)
                continue
            for at in range(config.num_hidden_layers):
                load_layer(weights, at)
                config.attention_attributes(at, 1.0)

    return read


FORMAT = Format("decoders", _make, _mutate, _reader, memory=1 << 31, seconds=20.0)
