"""A document: read from a file as `allmem-run` reads it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import MODEL, load_toy, write_toy
from hostile.fuzz.mutate_bytes import mutated_bytes
from session_tools import DOCUMENT

from allmem_runtime.text.sources import open_source

FILE = "story.txt"
_PARTS = (
    b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\0", b"\0" * 5000, b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\r", b"\r\n" * 3000, b"\n" * 9000, b"%PDF-1.7", b"PK\x03\x04", b"<html>", b"x" * 70_000,
    b"<|im_end|>", b"\xe2\x80\xae", b"\xcc\x81" * 5000, b"\xf0\x9f\x91\xa9\xe2\x80\x8d" * 500,
    b" " * 9000,
    b"\xc3", b"\x1b[2J", b"\xc2\x85", b"\xe2\x80\xa8" * 99, "東京".encode("euc-jp") * 999,
)  # fmt: skip


def _make(folder: Path) -> None:
    write_toy(folder / MODEL)
    (folder / FILE).write_text(DOCUMENT[:3000], encoding="utf-8")


def _mutate(files: Files, draw: Random) -> Files:
    data = files[FILE][:200_000]
    if draw.random() < 0.4:
        data = mutated_bytes(data, draw, 16)
    for _ in range(draw.randrange(4)):
        at = draw.choice((0, draw.randrange(len(data) + 1), len(data)))
        data = data[:at] + draw.choice(_PARTS) + data[at:]
    return {FILE: data}


def _reader(good: Path) -> Read:
    model = load_toy(good / MODEL)

    def read(folder: Path) -> None:
        with (folder / FILE).open("rb") as stdin:
            source = open_source(str(folder / FILE), stdin)
            session = model.session(text=True)
            for _ in session.ingest(source.pieces(), name=source.name):
                pass

    return read


FORMAT = Format("document", _make, _mutate, _reader, seconds=30.0)
