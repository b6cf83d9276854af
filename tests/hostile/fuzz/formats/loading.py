"""A graph that passes our walk, as ONNX Runtime opens it, and a first step with it."""

from __future__ import annotations

from pathlib import Path

from hostile.fuzz.format import Format, Read
from hostile.fuzz.formats import graph
from hostile.fuzz.formats._toy import load_toy, write_toy


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        session = load_toy(folder).session()
        for _ in session.ingest("A few words."):
            pass

    return read


FORMAT = Format("loading", write_toy, graph.mutate, _reader)
