"""A head table, as `allmem export --windows` reads it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.mutate_json import mutated_json_bytes
from tiny import tiny_config

from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.heads.windows import give_windows

FILE = "heads.json"


def _make(folder: Path) -> None:
    worth = (((0.1, 0.2, 0.0), (0.5, 0.0, -0.1)), ((0.0, 0.0, 0.0), (0.3, 0.2, 0.1)))
    table = HeadTable("d" * 64, (8, 16, 32, 60), 4, worth, {"copy": 1.5}, {"copy": 3})
    table.save(folder / FILE)


def _mutate(files: Files, draw: Random) -> Files:
    return {FILE: mutated_json_bytes(files[FILE], draw)}


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        config = tiny_config()
        give_windows(folder / FILE, config, "d" * 64, None, lambda line: None)
        config.check()

    return read


FORMAT = Format("heads", _make, _mutate, _reader)
