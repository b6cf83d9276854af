"""A model's generation_config.json, and a token drawn as it says."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import load_toy, sealed, write_toy
from hostile.fuzz.mutate_json import mutated_json_bytes

from allmem_runtime import spec
from allmem_runtime.files.package import open_package
from allmem_runtime.generation.sampling import pick
from allmem_runtime.loaded_model import LoadedModel

_LOGITS = np.random.default_rng(0).standard_normal(330).astype(np.float32) * 5


def _make(folder: Path) -> None:
    write_toy(folder)
    files = {name: (folder / name).read_bytes() for name in (spec.GRAPH_FILE, spec.MANIFEST_FILE)}
    values = {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02,
              "repetition_penalty": 1.1, "eos_token_id": [2, 0], "max_length": 20}  # fmt: skip
    for name, data in sealed(files, {spec.GENERATION_FILE: json.dumps(values).encode()}).items():
        (folder / name).write_bytes(data)


def _mutate(files: Files, draw: Random) -> Files:
    data = mutated_json_bytes(files[spec.GENERATION_FILE], draw)
    return sealed(files, {spec.GENERATION_FILE: data})


def _reader(good: Path) -> Read:
    engine = load_toy(good).engine

    def read(folder: Path) -> None:
        sampling = LoadedModel(open_package(folder), engine).sampling
        pick(_LOGITS, sampling, [1, 2, 2], 7, 7)

    return read


FORMAT = Format("generation", _make, _mutate, _reader)
