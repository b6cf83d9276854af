"""A model's tokenizer.json, with the size and digest that the manifest gives of it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import load_toy, sealed, write_toy
from hostile.fuzz.mutate_json import mutated_json_bytes
from session_tools import DOCUMENT

from allmem_runtime import spec
from allmem_runtime.files.package import open_package
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.text.parts import Part


def _mutate(files: Files, draw: Random) -> Files:
    data = mutated_json_bytes(files[spec.TOKENIZER_FILE], draw)
    return sealed(files, {spec.TOKENIZER_FILE: data})


def _reader(good: Path) -> Read:
    engine = load_toy(good).engine

    def read(folder: Path) -> None:
        tokenizer = LoadedModel(open_package(folder), engine).tokenizer
        tokenizer.decode(tokenizer.encode_text(DOCUMENT[:500]))
        tokenizer.decode(
            tokenizer.encode_parts([Part("<|im_start|>user\n", True), Part("A question.", False)])
        )
        tokenizer.decode(range(0, tokenizer.vocab_size, 7))

    return read


FORMAT = Format("tokenizer", write_toy, _mutate, _reader)
