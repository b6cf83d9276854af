"""A graph as `allmem export` writes it, with the bodies of our operators, and a first step with it.

Our own library runs the operators first, then ONNX Runtime their bodies.
"""

from __future__ import annotations

from pathlib import Path

from hostile.fuzz.format import Format, Read
from hostile.fuzz.formats.loading import mutate

from allmem_runtime import load


def _make(folder: Path) -> None:
    from tiny import tiny_config, write_tiny_checkpoint

    from allmem_exporters.onnx.export import export

    checkpoint = write_tiny_checkpoint(
        folder.parent / "checkpoint", tiny_config(num_hidden_layers=1)
    )
    export(checkpoint, folder, check=False, weights="int4", kv_cache_dtype="int8")


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        for operators in ("native", "portable"):
            session = load(folder, device="cpu", operators=operators, threads=1).session()
            for _ in session.ingest("A few words."):
                pass

    return read


FORMAT = Format("exported", _make, mutate, _reader)
