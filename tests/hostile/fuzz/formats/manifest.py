"""A model's manifest, spoiled alike in the graph's metadata and in allmem.json."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import load_toy, with_manifest, write_toy
from hostile.fuzz.mutate_json import mutated_json

from allmem_runtime import spec
from allmem_runtime.info import model_info, model_lines


def _mutate(files: Files, draw: Random) -> Files:
    text = mutated_json(files[spec.MANIFEST_FILE].decode(), draw)
    made = with_manifest(files, text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    if draw.random() < 0.1:  # one of the two alone
        del made[draw.choice(list(made))]
    return made


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        info = model_info(folder)
        json.dumps(info)
        "\n".join(model_lines(info)).encode("utf-8", "replace")
        session = load_toy(folder).session()
        for _ in session.ingest("A few words."):
            pass

    return read


FORMAT = Format("manifest", write_toy, _mutate, _reader)
