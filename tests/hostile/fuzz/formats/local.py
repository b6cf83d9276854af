"""The manifest of a model with layers that differ in their windows, spoiled as the toy model's."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format
from hostile.fuzz.formats import manifest

from benchmarks.families.tiny import write_tiny_decoder


def _make(folder: Path) -> None:
    from allmem_exporters.make import make
    from allmem_exporters.model.memory_options import MemoryOptions
    from allmem_exporters.onnx.export_options import ExportOptions

    source = folder.parent / "source"
    write_tiny_decoder(
        source,
        "gemma3_text",
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=16,
    )
    make(
        source,
        folder,
        MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16),
        ExportOptions(check=False, force=True),
    )


def _mutate(files: Files, draw: Random) -> Files:
    return manifest.FORMAT.mutate(files, draw)


FORMAT = Format("local", _make, _mutate, manifest.FORMAT.reader)
