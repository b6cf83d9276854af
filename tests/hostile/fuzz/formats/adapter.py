"""A memory adapter, as `allmem convert --memory` reads it."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from checkpoints import write_folder
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats import _pretrained  # noqa: F401 - it quiets the library
from hostile.fuzz.formats._safetensors import mutated_tensors

from allmem_exporters.convert.conversion import convert
from allmem_exporters.model.adapter import base_digest, save_adapter
from allmem_exporters.model.checkpoint import open_checkpoint

SOURCE = "source"
FILE = "memory.safetensors"
_WINDOW = {"window": 32, "sinks": 4, "chunk": 16}


def _make(folder: Path) -> None:
    write_folder(folder / SOURCE)
    convert(folder / SOURCE, folder / "made", **_WINDOW, mem_width=16)
    model = open_checkpoint(folder / "made", "auto")
    save_adapter(model, folder / FILE, {"steps": 6}, base_digest(model))
    shutil.rmtree(folder / "made")


def _mutate(files: Files, draw: Random) -> Files:
    return {FILE: mutated_tensors(files[FILE], draw)}


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        convert(good / SOURCE, folder / "out", memory=folder / FILE, **_WINDOW)

    return read


FORMAT = Format("adapter", _make, _mutate, _reader, memory=1 << 31)
