"""Subtitles, SubRip and WebVTT: what is said, under the minute it is said in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.anything import encoding_of
from allmem_runtime.documents.parts import Budget, Chapter, Part, Text

_TIME = re.compile(r"(?:(\d{1,4}):)?(\d\d):(\d\d)[.,]\d{3} --> ")
_TAG = re.compile(r"</?[a-zA-Z0-9.\s]+[^<>]*>|\{\\[^{}]*\}")


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The lines that are said; the chapter is hours and minutes; see ``Extract``."""
    encoding = encoding_of(file, name)
    file.seek(0)
    data = file.read()
    budget.take(len(data))
    minute, said_before = "", ""
    blocks = re.split(r"\n[ \t]*\n", data.decode(encoding, "replace").replace("\r\n", "\n"))
    for block in blocks:
        lines = block.strip("\n").split("\n")
        at = next((i for i, line in enumerate(lines[:3]) if _TIME.match(line.strip())), None)
        if at is None:
            continue
        time = _TIME.match(lines[at].strip())
        assert time is not None
        if (now := f"{int(time[1] or 0):02d}:{time[2]}") != minute:
            minute = now
            yield Chapter(now)
        said = _TAG.sub("", "\n".join(lines[at + 1 :])).strip()
        if said and said != said_before:
            yield Text(said + "\n")
        said_before = said
