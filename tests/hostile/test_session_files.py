"""No session file, however cut, changed or made up, does more than be refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_tools import DOCUMENT, read

from allmem_runtime import Model, SessionFileError
from allmem_runtime.errors import UsageError
from allmem_runtime.files.header import header_bytes, header_digest
from allmem_runtime.spec import past_name


@pytest.fixture(scope="module")
def good(toy: Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A session in the middle of a document."""
    session = toy.session()
    for number, _ in enumerate(session.ingest(DOCUMENT)):
        if number == 5:
            break
    path = tmp_path_factory.mktemp("good") / "s.allmem"
    session.save(path)
    assert toy.open(path).pending
    return path.read_bytes()


def refused(model: Model, path: Path, data: bytes) -> SessionFileError:
    """Write the bytes and see them refused by file name."""
    path.write_bytes(data)
    with pytest.raises(SessionFileError) as caught:
        model.open(path)
    assert path.name in caught.value.message
    assert caught.value.hint
    return caught.value


def test_what_is_no_regular_file_is_refused_at_once(toy: Model, tmp_path: Path) -> None:
    """A named pipe that nobody writes to would be waited for."""
    path = tmp_path / "s.allmem"
    os.mkfifo(path)
    with pytest.raises(SessionFileError, match=r"s\.allmem cannot be read: not a regular file"):
        toy.open(path)


def test_file_cut_anywhere_is_refused(toy: Model, good: bytes, tmp_path: Path) -> None:
    places = [*range(4096), *range(4096, len(good), 97), len(good) - 1]
    for place in places:
        refused(toy, tmp_path / "s.allmem", good[:place])


def test_file_with_more_at_its_end_is_refused(toy: Model, good: bytes, tmp_path: Path) -> None:
    refused(toy, tmp_path / "s.allmem", good + b"\0")


def test_every_flipped_bit_of_the_header_is_noticed(
    toy: Model, good: bytes, tmp_path: Path
) -> None:
    header = 8 + int.from_bytes(good[:8], "little")
    for place in range(header):
        bit = place % 8  # all bits of the length, one of each later byte
        for flip in range(8) if place < 8 else (bit,):
            data = bytearray(good)
            data[place] ^= 1 << flip
            refused(toy, tmp_path / "s.allmem", bytes(data))


def test_flipped_bits_of_the_tensors_are_noticed(toy: Model, good: bytes, tmp_path: Path) -> None:
    header = 8 + int.from_bytes(good[:8], "little")
    draw = random.Random(5)
    for _ in range(300):
        data = bytearray(good)
        data[draw.randrange(header, len(data))] ^= 1 << draw.randrange(8)
        error = refused(toy, tmp_path / "s.allmem", bytes(data))
        assert "was changed" in error.message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 8, id="length of 16 exabytes"),
        pytest.param((1 << 40).to_bytes(8, "little") + b"{}", id="length of a terabyte"),
        pytest.param(b"\x02" + b"\0" * 7 + b"{}", id="empty object"),
        pytest.param(b"\x02" + b"\0" * 7 + b"[]", id="list"),
        pytest.param(b"\x04" + b"\0" * 7 + b"null", id="null"),
        pytest.param((1 << 20).to_bytes(8, "little") + b"[" * (1 << 20), id="deep nesting"),
        pytest.param(b"PK\x03\x04" + b"\0" * 100, id="zip"),
        pytest.param(b"\x80\x04\x95" + b"\0" * 100, id="pickle"),
        pytest.param(b"Dear reader, " * 50, id="text"),
    ],
)
def test_what_is_no_session_file_is_refused(toy: Model, tmp_path: Path, data: bytes) -> None:
    refused(toy, tmp_path / "s.allmem", data)


def test_header_written_in_another_way_is_refused(toy: Model, good: bytes, tmp_path: Path) -> None:
    """The same values with other spaces: nothing but our own writer's bytes is accepted."""
    length = int.from_bytes(good[:8], "little")
    header = b"{ " + good[9 : 8 + length]
    refused(
        toy, tmp_path / "s.allmem", len(header).to_bytes(8, "little") + header + good[8 + length :]
    )


def test_random_bytes_are_refused(toy: Model, tmp_path: Path) -> None:
    draw = random.Random(6)
    for _ in range(200):
        data = draw.randbytes(draw.randrange(300))
        length = draw.randrange(400).to_bytes(8, "little")
        refused(toy, tmp_path / "s.allmem", length + data)


# Files that are well made and lie -------------------------------------------------------------

Header = dict[str, Any]


def forged(good: bytes, change: Callable[[Header], None], tensors: bytes | None = None) -> bytes:
    """The file with a changed header whose digest is right again."""
    length = int.from_bytes(good[:8], "little")
    header: Header = json.loads(good[8 : 8 + length])
    change(header)
    table = {key: value for key, value in header.items() if key != "__metadata__"}
    metadata = header["__metadata__"]
    metadata["digest"] = header_digest(metadata, table)
    data = header_bytes(metadata, table)
    body = good[8 + length :] if tensors is None else tensors
    return len(data).to_bytes(8, "little") + data + body


def meta(**values: str) -> Callable[[Header], None]:
    return lambda header: header["__metadata__"].update(values)


def row(name: str, **values: Any) -> Callable[[Header], None]:
    return lambda header: header[name].update(values)


def test_forging_helper_makes_files_that_open(toy: Model, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    path.write_bytes(forged(good, meta(created="yesterday")))
    assert toy.open(path).position > 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(meta(position="99999999999999999999"), id="position past all bounds"),
        pytest.param(meta(turn="admin"), id="unknown turn"),
        pytest.param(meta(pending="[1000000]"), id="token outside the vocabulary"),
        pytest.param(meta(pending="null"), id="pending is no list"),
        pytest.param(meta(source_offset="-1"), id="negative offset"),
        pytest.param(meta(tensors="[]"), id="digests are a list"),
        pytest.param(meta(tensors="{}"), id="no digests"),
        pytest.param(meta(tensors="{"), id="digests are no JSON"),
        pytest.param(meta(format="safetensors"), id="other format"),
        pytest.param(meta(model_digest="0" * 64), id="other model"),
        pytest.param(lambda h: h["__metadata__"].pop("operators"), id="no operators"),
        pytest.param(lambda h: h["__metadata__"].update(extra=5), id="metadata is no text"),
        pytest.param(lambda h: h.pop("past.0.key"), id="a tensor is missing"),
        pytest.param(
            lambda h: h.update(evil={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
            id="a tensor too many",
        ),
        pytest.param(row("past.0.key", shape=[1, 1, 1 << 40, 4]), id="huge shape"),
        pytest.param(row("past.0.key", shape=[-1, -1, 66, 4]), id="negative shape"),
        pytest.param(row("past.0.key", shape=[1, 66, 1, 4]), id="other shape of one size"),
        pytest.param(row("past.0.key", shape=[10**400, 0]), id="shape beyond all numbers"),
        pytest.param(row("past.0.key", shape=[1e308, 1e308]), id="shape of large fractions"),
        pytest.param(row("past.0.key", shape=[-0.0, 1, 66, 4]), id="shape with a negative zero"),
        pytest.param(row("past.0.key", shape=[True, 1, 66, 4]), id="shape with a truth"),
        pytest.param(row("past.0.key", more=1), id="row with more in it"),
        pytest.param(meta(model_name="\ud800"), id="half a character in a name"),
        pytest.param(meta(pending='["\\ud800"]'), id="half a character in a text"),
        pytest.param(meta(pending="[" * 9999), id="deep nesting in a text"),
        pytest.param(meta(recent="[1" + "0" * 9999 + "]"), id="number of ten thousand digits"),
        pytest.param(row("past.0.key", dtype="BOOL"), id="other type"),
        pytest.param(row("past.0.key", data_offsets=[-8, 520]), id="negative range"),
        pytest.param(row("past.0.key", data_offsets=[528, 1056]), id="overlapping ranges"),
        pytest.param(row("past.0.key", data_offsets=[0]), id="half a range"),
        pytest.param(row("past.0.key", data_offsets=["0", "528"]), id="range of texts"),
        pytest.param(lambda h: h.update({"past.0.key": 5}), id="row is a number"),
    ],
)
def test_lying_header_is_refused(
    toy: Model, good: bytes, tmp_path: Path, change: Callable[[Header], None]
) -> None:
    refused(toy, tmp_path / "s.allmem", forged(good, change))


def test_state_with_a_nan_is_refused_even_if_its_digest_is_right(
    toy: Model, good: bytes, tmp_path: Path
) -> None:
    body = bytearray(good[8 + int.from_bytes(good[:8], "little") :])
    parts = {}
    at = 0
    for layer, tensor in toy.manifest.state:
        if tensor.name == "weights":
            body[at : at + 4] = np.float32(np.nan).tobytes()
        name = past_name(layer, tensor.name)
        parts[name] = hashlib.sha256(body[at : at + tensor.nbytes]).hexdigest()
        at += tensor.nbytes
    change = meta(tensors=json.dumps(parts, sort_keys=True))

    error = refused(toy, tmp_path / "s.allmem", forged(good, change, bytes(body)))
    assert "not finite" in error.message


def test_refused_file_never_touches_a_live_session(toy: Model, good: bytes, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    before = session._cursor.place.copy()
    data = bytearray(good)
    data[-1] ^= 1
    refused(toy, tmp_path / "s.allmem", bytes(data))

    assert session._cursor.place == before


@pytest.mark.parametrize("name", ["no.allmem", "."])
def test_path_that_is_no_file_is_refused(toy: Model, tmp_path: Path, name: str) -> None:
    with pytest.raises(SessionFileError, match="cannot be read"):
        toy.open(tmp_path / name)


def test_path_with_a_null_character_is_refused(toy: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Give the path of a file"):
        toy.open(tmp_path / "a\0b")
