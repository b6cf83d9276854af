"""Weights prepared for this CPU: the record beside them, signed anew or not, and the files."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import MODEL, write_toy
from hostile.fuzz.mutate_bytes import mutated_bytes
from hostile.fuzz.mutate_json import mutated_json_bytes

from allmem_runtime.engine import prepared
from allmem_runtime.engine.preparing import prepare
from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.package import open_package
from allmem_runtime.files.user_cache import VARIABLE
from allmem_runtime.info import model_info, model_lines


def _make(folder: Path) -> None:
    write_toy(folder / MODEL)
    os.environ[VARIABLE] = str(folder / "cache")
    prepare(open_package(folder / MODEL), None, threads=1)


def _mutate(files: Files, draw: Random) -> Files:
    names = [name for name in files if "/prepared/" in name and not name.endswith(".lock")]
    name = draw.choice([*names, *(n for n in names if n.endswith(prepared.RECORD_FILE))])
    if name.endswith(prepared.RECORD_FILE):
        return {name: mutated_json_bytes(files[name], draw)}
    return {name: mutated_bytes(files[name], draw, 64)}


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        os.environ[VARIABLE] = str(folder / "cache")
        package = open_package(folder / MODEL)
        found = prepared.find(package, None)
        "\n".join(model_lines(model_info(folder / MODEL)))
        if found.notice:
            raise ModelFileError(found.notice)  # told to the user as a notice

    return read


FORMAT = Format("prepared", _make, _mutate, _reader)
