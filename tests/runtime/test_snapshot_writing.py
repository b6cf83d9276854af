"""A session file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from session_tools import DOCUMENT, assert_same, read

from allmem_runtime import Model, StorageError
from allmem_runtime.errors import UsageError
from allmem_runtime.files import atomic, forking, snapshot


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
    toy.session().save(path)
    assert os.listdir(tmp_path) == ["s.allmem"]


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


def test_file_that_is_replaced_while_it_is_opened_is_the_old_one_whole(
    toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.allmem"
    old, new = toy.session(), read(toy.session(), DOCUMENT)
    old.save(path)
    read_tensors = snapshot.read_tensors

    def replaced(*arguments: Any) -> None:
        new.save(path)  # after the header was read, before the tensors are
        read_tensors(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "read_tensors", replaced)
        assert_same(toy.open(path), old)
    assert_same(toy.open(path), new)


def test_file_that_is_replaced_while_it_is_copied_is_the_old_one_whole(
    toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fork = tmp_path / "s.allmem", tmp_path / "fork.allmem"
    old, new = toy.session(), read(toy.session(), DOCUMENT)
    old.save(path)
    digest = snapshot.read_header(path).digest
    header_digest = forking.header_digest

    def replaced(*arguments: Any) -> str:
        new.save(path)  # after the header was read, before the tensors are
        return header_digest(*arguments)

    monkeypatch.setattr(forking, "header_digest", replaced)
    forking.fork_file(path, fork)
    assert snapshot.read_header(fork).metadata["parent"] == digest
    assert toy.open(fork).position == old.position


def test_saves_of_one_thread_are_opened_whole_by_another(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    sessions = [toy.session(), read(toy.session(), DOCUMENT)]
    positions = {session.position for session in sessions}
    sessions[0].save(path)
    done = threading.Event()

    def save() -> None:
        for session in itertools.cycle(sessions):
            session.save(path)
            if done.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save)
        try:
            opened = {toy.open(path).position for _ in range(100)}
        finally:
            done.set()
        saving.result()
    assert opened <= positions
    assert os.listdir(tmp_path) == ["s.allmem"]


def test_folder_that_cannot_be_written_is_an_error(toy: Model, tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "s.allmem", tmp_path):
        with pytest.raises(StorageError, match="could not be written"):
            toy.session().save(path)
    with pytest.raises(UsageError, match="Give the path of a file"):
        toy.session().save(tmp_path / "nul\0byte")
    assert os.listdir(tmp_path) == []
