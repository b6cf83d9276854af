"""A saved session is the old file or the new one, and opens as what it was or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from session_tools import DOCUMENT, assert_same, fed_tokens, read, state

from allmem_runtime import Model, Sampling, SessionFileError, SessionStateError, StorageError
from allmem_runtime.files import atomic, snapshot
from allmem_runtime.files.place_text import place_from_metadata, place_to_metadata
from allmem_runtime.state import Place, SourceMark

SHORT = Sampling(max_tokens=5)


def test_restored_session_is_the_saved_one(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.ask("Who?", sampling=SHORT)
    session.save(tmp_path / "s.allmem")

    restored = toy.open(tmp_path / "s.allmem")

    assert_same(restored, session)
    assert restored.info()["seed"] == session.info()["seed"]


def test_restored_session_processes_only_new_tokens(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "s.allmem")
    restored = toy.open(tmp_path / "s.allmem")

    with fed_tokens() as after_restore:
        first = restored.ask("Who?", sampling=SHORT)
    with fed_tokens() as uninterrupted:
        second = session.ask("Who?", sampling=SHORT)

    assert after_restore == uninterrupted
    assert len(after_restore) < 40 < session.position
    assert first == second


def test_other_programs_can_read_the_container(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "s.allmem")

    with safetensors.safe_open(tmp_path / "s.allmem", "np") as file:
        assert file.metadata()["model_name"] == "stand-in"
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = state(session)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def test_header_tells_what_is_inside_without_the_model(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "s.allmem")

    header = snapshot.read_header(tmp_path / "s.allmem")

    assert header.model_name == "stand-in"
    assert header.data_bytes == toy.state_bytes
    assert header.place(toy.manifest.backbone.vocab_size).position == session.position


def test_files_know_their_parents(toy: Model, tmp_path: Path) -> None:
    def header(name: str) -> snapshot.Header:
        return snapshot.read_header(tmp_path / name)

    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "one.allmem")
    fork = toy.open(tmp_path / "one.allmem").fork()
    fork.ask("Who?", sampling=SHORT)
    fork.save(tmp_path / "two.allmem")

    assert header("one.allmem").metadata["parent"] == ""
    assert header("two.allmem").metadata["parent"] == header("one.allmem").digest


def test_file_is_for_its_owner_only(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    path.write_text("old")
    path.chmod(0o644)

    toy.session().save(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_holds_no_text_of_the_document(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), "The canary sings at seven. " * 200)
    session.ask("What does the canary do?", sampling=SHORT)
    session.save(tmp_path / "s.allmem")

    data = (tmp_path / "s.allmem").read_bytes()
    assert b"canary" not in data
    assert "canary".encode("utf-16-le") not in data


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["past.0.key", "past.1.conv_tail"])
def test_state_that_is_not_finite_never_replaces_a_good_one(
    toy: Model, tmp_path: Path, name: str, bad: float
) -> None:
    session = toy.session()
    path = tmp_path / "s.allmem"
    session.save(path)
    good = path.read_bytes()
    session._cursor.tensors.read(name).flat[0] = bad

    with pytest.raises(SessionStateError, match=f"{name} holds a value that is not finite"):
        session.save(path)

    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["s.allmem"]


# Another model --------------------------------------------------------------------------------


def test_session_of_another_model_is_refused_naming_both(
    toy: Model, other_toy: Model, tmp_path: Path
) -> None:
    toy.session().save(tmp_path / "s.allmem")

    with pytest.raises(SessionFileError) as caught:
        other_toy.open(tmp_path / "s.allmem")
    for part in ("s.allmem", "'stand-in'", "'other'", toy.package.digest[:12]):
        assert part in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": "0" * 64}, "graph 000000000000"),
        ({"tokenizer": "0" * 64}, "tokenizer 000000000000"),
        ({"operators": {"TTTMemory": 2}}, 'operator versions {"TTTMemory": 2}'),
    ],
)
def test_every_mismatch_is_named(
    toy: Model, tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    import dataclasses

    from allmem_runtime.session.kept_state import _owner

    toy.session().save(tmp_path / "s.allmem")
    header = snapshot.read_header(tmp_path / "s.allmem")

    with pytest.raises(SessionFileError) as caught:
        header.check(dataclasses.replace(_owner(toy), **change), toy.manifest.state)
    assert what in caught.value.message


def test_other_state_layout_is_named(toy: Model, tmp_path: Path) -> None:
    import stand_in

    from allmem_runtime.session.kept_state import _owner

    toy.session().save(tmp_path / "s.allmem")
    header = snapshot.read_header(tmp_path / "s.allmem")

    with pytest.raises(SessionFileError, match="state layout"):
        header.check(_owner(toy), stand_in.manifest({}, window=63).state)


def test_newer_format_is_refused_by_its_number(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    toy.session().save(path)
    path.write_bytes(path.read_bytes().replace(b'"format_version":"1"', b'"format_version":"2"'))

    with pytest.raises(SessionFileError, match="format version '2'; this runtime reads 1"):
        toy.open(path)


# Writing that fails ---------------------------------------------------------------------------


class Disk:
    """Counts the calls that reach the disk and fails one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int, code: int) -> None:
        self.calls = 0
        self.fail_at = fail_at
        self.code = code
        for name in ("fsync", "replace"):
            patch.setattr(atomic.os, name, self.wrap(getattr(os, name)))
        fdopen = os.fdopen

        def opened(handle: int, mode: str) -> Any:
            file = fdopen(handle, mode, buffering=0)
            return _File(file, self)

        patch.setattr(atomic.os, "fdopen", opened)

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(self.code, os.strerror(self.code))

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            self.count()
            return function(*arguments)

        return wrapped


class _File:
    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: bytes) -> int:
        try:
            self._disk.count()
        except OSError:
            self._file.write(bytes(data)[: len(data) // 2])  # the disk took a part of it
            raise
        return int(self._file.write(data))

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failed_write_leaves_the_old_file_whole(toy: Model, tmp_path: Path, code: int) -> None:
    path = tmp_path / "s.allmem"
    old = toy.session()
    old.save(path)
    before = path.read_bytes()
    session = read(toy.session(), DOCUMENT)

    failures = 0
    for fail_at in range(1, 100):
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, fail_at, code)
            try:
                session.save(path)
            except StorageError as error:
                failures += 1
                assert "s.allmem could not be written" in error.message
                assert ("Make room" in error.hint) == (code == errno.ENOSPC)
            else:
                break
        if disk.calls < fail_at:
            break
        renamed = fail_at == disk.calls and path.read_bytes() != before
        assert renamed or path.read_bytes() == before
        toy.open(path)
        assert os.listdir(tmp_path) == ["s.allmem"]

    # Length, header, every tensor, sync of the file, rename, sync of the folder.
    assert failures == 2 + len(list(toy.manifest.state)) + 3
    assert_same(toy.open(path), session)


KILLED = """
import os, sys
from pathlib import Path
from allmem_runtime import load
from allmem_runtime.files import snapshot
model = load(sys.argv[1], device="cpu", operators="portable", threads=1)
session = model.open(sys.argv[2])
session.feed([5] * 100)
left = int(sys.argv[3])
def dying(function):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*arguments, **options)
    return wrapped
class File:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, data): return dying(self.file.write)(data)
fdopen = os.fdopen
os.fdopen = lambda handle, mode: File(fdopen(handle, mode, buffering=0))
for name in ("fsync", "replace", "open"):
    setattr(os, name, dying(getattr(os, name)))
session.save(sys.argv[2])
"""


@pytest.mark.parametrize("calls", [0, 1, 2, 9, 15, 16, 17, 18, 19])
def test_killed_save_leaves_the_old_file_or_the_new_one(
    toy: Model, toy_dir: Path, tmp_path: Path, calls: int
) -> None:
    path = tmp_path / "s.allmem"
    read(toy.session(), DOCUMENT).save(path)
    before = path.read_bytes()
    position = toy.open(path).position

    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(toy_dir), str(path), str(calls)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )

    assert done.returncode == 9
    assert path.read_bytes() == before or toy.open(path).position == position + 100


RACING = """
import sys
from allmem_runtime import load
session = load(sys.argv[1], device="cpu", operators="portable", threads=1).session()
for _ in range(100):
    session.feed([5] * 10)
    session.save(sys.argv[2])
"""


def test_processes_that_save_to_one_file_never_spoil_it(
    toy: Model, toy_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.allmem"
    toy.session().save(path)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", RACING, str(toy_dir), str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    opened = 0
    while any(writer.poll() is None for writer in writers):
        data = path.read_bytes()  # one look at the file, as a copy would take it
        (tmp_path / "copy.allmem").write_bytes(data)
        assert toy.open(tmp_path / "copy.allmem").position % 10 == 0
        opened += 1

    assert [writer.wait() for writer in writers] == [0, 0]
    assert opened > 10
    assert toy.open(path).position == 1000
    assert sorted(os.listdir(tmp_path)) == ["copy.allmem", "s.allmem"]


def test_folder_that_cannot_be_written_is_an_error(toy: Model, tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "s.allmem", tmp_path, tmp_path / "nul\0byte"):
        with pytest.raises(StorageError, match="could not be written"):
            toy.session().save(path)
    assert os.listdir(tmp_path) == []


# Place as text --------------------------------------------------------------------------------

PLACE = Place(
    position=12345,
    turn="document",
    pending=[1, 2, 3],
    recent=[4, 5],
    seed=99,
    source=SourceMark(offset=777, finished=False, digest="a" * 64, digest_bytes=777),
)


def test_place_survives_as_text() -> None:
    assert place_from_metadata(place_to_metadata(PLACE), 330) == PLACE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position", "-1"),
        ("position", "1.5"),
        ("position", str(1 << 60)),
        ("position", "١٢"),
        ("position", ""),
        ("turn", "system"),
        ("seed", str(1 << 63)),
        ("pending", "[330]"),
        ("pending", "[-1]"),
        ("pending", "[true]"),
        ("pending", "[1.0]"),
        ("pending", "{}"),
        ("pending", "[" * 100_000),
        ("recent", json.dumps([1] * 65)),
        ("source_offset", "x"),
        ("source_finished", "1"),
        ("source_digest", "A" * 64),
        ("source_digest", "ab"),
        ("source_digest_bytes", "-5"),
    ],
)
def test_impossible_place_is_refused_by_its_key(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=key):
        place_from_metadata({**place_to_metadata(PLACE), key: value}, 330)


@pytest.mark.parametrize("key", sorted(place_to_metadata(PLACE)))
def test_missing_key_is_named(key: str) -> None:
    metadata = place_to_metadata(PLACE)
    del metadata[key]
    with pytest.raises(ValueError, match=f"{key} is missing"):
        place_from_metadata(metadata, 330)
