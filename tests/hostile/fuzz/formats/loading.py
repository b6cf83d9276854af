"""A graph that passes our walk, as ONNX Runtime opens it, and a first step with it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats import graph
from hostile.fuzz.formats._toy import load_toy, write_toy
from hostile.fuzz.mutate_graph import mutated_graph

from allmem_runtime import spec


def mutate(files: Files, draw: Random) -> Files:
    """Change what the graph computes, or how it is written."""
    if draw.random() < 0.3:
        return graph.mutate(files, draw)
    return {spec.GRAPH_FILE: mutated_graph(files[spec.GRAPH_FILE], draw)}


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        session = load_toy(folder).session()
        for _ in session.ingest("A few words."):
            pass

    return read


FORMAT = Format("loading", write_toy, mutate, _reader)
