"""Preparing happens once, where there is room, in one process; a failure leaves what was there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.prepared.opening import is_right, opened
from runtime.writers import writing

from allmem_runtime import ModelFileError, StorageError
from allmem_runtime.engine import prepared, preparing
from allmem_runtime.files.package import Package
from allmem_runtime.files.user_cache import VARIABLE


def test_prepared_twice_is_prepared_once(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = preparing.prepare(package, None)
    monkeypatch.setattr(preparing, "save_prepared", lambda *_: pytest.fail("did it again"))
    assert preparing.prepare(package, None) == folder


def test_asked_to_it_is_done_again(package: Package) -> None:
    folder = preparing.prepare(package, None)
    before = (folder / "model.onnx").stat().st_ino
    assert preparing.prepare(package, None, again=True) == folder
    assert (folder / "model.onnx").stat().st_ino != before
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make folders unwritable, whoever runs the tests."""
    refused: list[Path] = []
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **options: Any) -> None:
        if any(self.is_relative_to(folder) for folder in refused):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return refused.append


def test_beside_a_read_only_model_the_cache_folder_is_used(
    package: Package, cache: Path, unwritable: Callable[[Path], None]
) -> None:
    unwritable(package.folder)
    folder = preparing.prepare(package, None)

    assert folder.is_relative_to(cache)
    model = opened(package)
    assert model.engine.prepared == folder
    assert is_right(package, model)


def test_where_nothing_can_be_written_the_error_names_both_places(
    package: Package, cache: Path, unwritable: Callable[[Path], None]
) -> None:
    unwritable(package.folder)
    unwritable(cache)
    with pytest.raises(StorageError) as caught:
        preparing.prepare(package, None)
    assert str(package.folder) in caught.value.message and str(cache) in caught.value.message
    assert VARIABLE in caught.value.hint


def test_too_little_room_is_said_before_anything_is_written(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(package.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(StorageError, match="1.0 MiB are free"):
        preparing.prepare(package, None)
    assert prepared.records(package.folder / "prepared") == []


def test_a_disk_that_fills_up_meanwhile_is_said_to_be_full(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
        raise ModelFileError("Failed to write external initializers.")

    usage = shutil.disk_usage(package.folder)
    monkeypatch.setattr(preparing, "save_prepared", fail)
    with pytest.raises(StorageError, match="No space left"):
        preparing.prepare(package, None)
    assert [path.name for path in (package.folder / "prepared").iterdir()] == [".lock"]


def test_damaged_weights_make_room_for_new_ones(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = preparing.prepare(package, None)
    os.truncate(folder / "model.onnx.data", 10)
    usage = shutil.disk_usage(package.folder)

    def free(path: Path) -> Any:
        return usage._replace(free=0 if folder.exists() else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", free)
    assert preparing.prepare(package, None) == folder


def test_a_failure_in_the_middle_leaves_what_was_there(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = preparing.prepare(package, None)
    names = {path.name for path in folder.parent.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preparing, "_write_record", fail)
    with pytest.raises(StorageError, match="No space left") as caught:
        preparing.prepare(package, None, again=True)
    assert "Make room" in caught.value.hint
    assert {path.name for path in folder.parent.iterdir()} == names
    assert opened(package).engine.prepared == folder


def test_what_a_killed_process_left_is_swept_up(package: Package) -> None:
    base = package.folder / "prepared"
    base.mkdir()
    with writing("folder", base / ("0" * 32)) as left:  # of another version's, say
        pass
    assert left.exists()
    assert opened(package).engine.prepared is None

    preparing.prepare(package, None)
    assert not left.exists()


def hold(path: Path, held: Any) -> None:
    """In another process: take the lock and keep it."""
    from allmem_runtime.files.locking import only_one

    with only_one(path, "testing"):
        held.set()
        time.sleep(60)


def test_two_processes_do_not_prepare_at_once(package: Package) -> None:
    base = package.folder / "prepared"
    base.mkdir()
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=hold, args=(base / ".lock", held), daemon=True)
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(StorageError, match="Another process is preparing this model"):
            preparing.prepare(package, None)
    finally:
        other.kill()
        other.join()
    # A lock dies with its process.
    assert preparing.prepare(package, None).is_dir()


def test_removing_leaves_the_model_as_it_was(package: Package, cache: Path) -> None:
    before = sorted(package.folder.iterdir())
    folder = preparing.prepare(package, None)

    (folder / "prepared.json").write_text("damaged")

    assert preparing.remove(package) == [folder]
    assert sorted(package.folder.iterdir()) == before
    assert preparing.remove(package) == []
    assert opened(package).engine.notices == []
