"""A saved session: its header forged with a digest that is right again, or spoiled as bytes."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import MODEL, load_toy, write_toy
from hostile.fuzz.mutate_bytes import mutated_bytes
from hostile.fuzz.mutate_json import mutated_json
from session_tools import DOCUMENT

from allmem_runtime import Sampling
from allmem_runtime.files.forking import fork_file
from allmem_runtime.files.header import header_bytes, header_digest
from allmem_runtime.info import session_info, session_lines

FILE = "s.allmem"


def _make(folder: Path) -> None:
    write_toy(folder / MODEL)
    session = load_toy(folder / MODEL).session()
    for number, _ in enumerate(session.ingest(DOCUMENT)):
        if number == 5:
            break
    session.save(folder / FILE)


def _mutate(files: Files, draw: Random) -> Files:
    data = files[FILE]
    length = int.from_bytes(data[:8], "little")
    if draw.random() < 0.15 or not 0 < length < len(data) - 8:
        return {FILE: mutated_bytes(data, draw, 8 + length)}
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    try:
        forged = json.loads(_forged(header, draw))
        metadata = forged.pop("__metadata__")
        metadata["digest"] = header_digest(metadata, forged)
        made = header_bytes(metadata, forged)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {FILE: mutated_bytes(data, draw, 8 + length)}  # nothing that has a digest
    return {FILE: len(made).to_bytes(8, "little") + made + data[8 + length :]}


def _forged(header: dict[str, Any], draw: Random) -> str:
    """The header, or one of the texts in its metadata, with changes."""
    kind = draw.random()
    if kind < 0.35:
        return mutated_json(json.dumps(header), draw)
    metadata = header["__metadata__"]
    if kind < 0.65:
        header["__metadata__"] = json.loads(mutated_json(json.dumps(metadata), draw))
    else:
        key = draw.choice(
            ("pending", "recent", "tensors", "operators", "source_finished", "unread")
        )
        metadata[key] = mutated_json(metadata.get(key, "[1, 2]"), draw)
    return json.dumps(header)


def _reader(good: Path) -> Read:
    model = load_toy(good / MODEL)

    def read(folder: Path) -> None:
        errors = []
        for use in (_inform, _fork, _go_on):
            try:
                use(folder / FILE)
            except Exception as error:
                errors.append(error)
        for error in errors:  # what is no refusal counts more than what is
            raise max(errors, key=lambda e: not hasattr(e, "hint")) from error

    def _go_on(path: Path) -> None:
        session = model.open(path)
        for _ in session.ingest("A few more words.", new_source=True):
            pass
        session.ask("What?", sampling=Sampling(max_tokens=2))

    return read


def _inform(path: Path) -> None:
    "\n".join(session_lines(session_info(path))).encode("utf-8", "replace")
    json.dumps(session_info(path))


def _fork(path: Path) -> None:
    fork_file(path, path.with_name("fork.allmem"))


FORMAT = Format("session", _make, _mutate, _reader)
