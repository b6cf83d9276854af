"""A converted checkpoint, as `allmem export` reads it; no graph is traced twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from unittest.mock import patch

import onnx_ir as ir
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._safetensors import mutated_tensors
from hostile.fuzz.mutate_bytes import mutated_bytes
from hostile.fuzz.mutate_json import mutated_json_bytes
from tiny import write_tiny_checkpoint

from allmem_exporters.model.checkpoint import read_config
from allmem_exporters.model.weights import ModelWeights, load_layer
from allmem_exporters.onnx import export as exporting
from allmem_exporters.onnx.trace import trace


class _Traced(Exception):
    """All was read; what follows would be tracing a graph of other sizes."""


def _make(folder: Path) -> None:
    write_tiny_checkpoint(folder)
    (folder / "provenance.json").write_text(json.dumps({"name": "tiny", "kind": "folder"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))


def _mutate(files: Files, draw: Random) -> Files:
    names = [name for name in files if "/" not in name]
    name = draw.choice([*names, *["config.json"] * 6])
    data = files[name]
    if name.endswith(".safetensors"):
        return {name: mutated_tensors(data, draw)}
    if name.endswith(".json"):
        return {name: mutated_json_bytes(data, draw)}
    return {name: mutated_bytes(data, draw)}


def _reader(good: Path) -> Read:
    config = read_config(good).to_json_string()
    graphs: list[ir.Model] = []

    def traced(weights: ModelWeights, activations: str = "float32") -> ir.Model:
        for at in range(weights.config.num_hidden_layers):
            load_layer(weights, at)
        if weights.config.to_json_string() != config:
            raise _Traced
        if not graphs:
            graphs.append(trace(weights, activations))
        return graphs[0].clone()

    def read(folder: Path) -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        try:
            with patch.object(exporting, "trace", traced):
                exporting.export(folder, folder / "out", check=False)
        except _Traced:
            pass

    return read


FORMAT = Format("checkpoint", _make, _mutate, _reader, memory=1 << 31)
