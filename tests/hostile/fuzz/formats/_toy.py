"""The toy model of standard operators, as the formats of a model folder and of sessions need it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import stand_in
from hostile.fuzz.format import Files

from allmem_runtime import Model, load, spec

MODEL = "model"
"""Folder of the toy model within a folder of examples."""


def write_toy(folder: Path) -> None:
    """The toy model as it is."""
    stand_in.write(folder)


def load_toy(folder: Path) -> Model:
    """Open it as a command does, with nothing of our own library in the process."""
    return load(folder, device="cpu", operators="portable", threads=1)


def sealed(files: Files, changed: Files) -> Files:
    """The changed files of a model, with a manifest that gives their sizes and digests."""
    manifest = json.loads(files[spec.MANIFEST_FILE])
    for name, data in changed.items():
        digest = hashlib.sha256(data).hexdigest()
        manifest["files"][name] = {"bytes": len(data), "sha256": digest}
    return {**changed, **with_manifest(files, json.dumps(manifest))}


def with_manifest(files: Files, text: str) -> Files:
    """The graph and the copy beside it with this text as the manifest."""
    data = text.encode("utf-8", "surrogatepass")
    graph = onnx.ModelProto.FromString(files[spec.GRAPH_FILE])
    del graph.metadata_props[:]
    made = graph.SerializeToString()
    # By hand: the library takes no text that is not UTF-8.
    key = spec.METADATA_KEY.encode()
    entry = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(data)) + data
    made += b"\x72" + _varint(len(entry)) + entry
    return {spec.GRAPH_FILE: made, spec.MANIFEST_FILE: data}


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
