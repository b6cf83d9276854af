"""A model's graph: our walk through it and protobuf must agree on what it says."""

from __future__ import annotations

from pathlib import Path
from random import Random

import onnx
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import write_toy
from hostile.fuzz.mutate_bytes import mutated_bytes
from hostile.fuzz.mutate_protobuf import mutated_message
from hostile.fuzz.what_protobuf_says import check_scan

from allmem_runtime import spec


def mutate(files: Files, draw: Random) -> Files:
    data = files[spec.GRAPH_FILE]
    """Change fields by the schema of ONNX, or bytes."""
    if draw.random() < 0.1:
        return {spec.GRAPH_FILE: mutated_bytes(data, draw, 4096)}
    return {spec.GRAPH_FILE: mutated_message(data, onnx.ModelProto.DESCRIPTOR, draw)}


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        check_scan(folder / spec.GRAPH_FILE)

    return read


FORMAT = Format("graph", write_toy, mutate, _reader)
