"""A lock is held by one, says so to others, and dies with its process."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from allmem_runtime import StorageError
from allmem_runtime.files.locking import only_one
from allmem_runtime.files.session_lock import saving_alone


def hold(path: Path, held: Any) -> None:
    """In another process: take the lock and keep it."""
    with only_one(path, "testing", leave=False):
        held.set()
        time.sleep(60)


@pytest.mark.parametrize("leave", [True, False], ids=["file stays", "file goes"])
def test_a_lock_keeps_others_out_until_it_is_let_go(tmp_path: Path, leave: bool) -> None:
    path = tmp_path / "lock"
    for _ in range(2):
        with only_one(path, "testing", leave=leave):
            with (
                pytest.raises(StorageError, match="Another process is testing"),
                only_one(path, "testing", leave=leave),
            ):
                pytest.fail("two have it")
            assert path.exists()
        assert path.exists() == leave


def test_a_lock_of_a_killed_process_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=hold, args=(path, held), daemon=True)
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(StorageError), only_one(path, "testing"):
            pytest.fail("two have it")
    finally:
        other.kill()
        other.join()
    assert path.exists()  # it left the file, which means nothing

    with only_one(path, "testing", leave=False):
        pass
    assert not path.exists()


def test_a_file_that_is_deleted_and_made_anew_is_never_locked_twice(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside, most, taken = 0, 0, 0
    counting = threading.Lock()

    def contend() -> None:
        nonlocal inside, most, taken
        for _ in range(2000):
            try:
                with only_one(path, "testing", leave=False):
                    with counting:
                        inside += 1
                        most, taken = max(most, inside), taken + 1
                    time.sleep(0)
                    with counting:
                        inside -= 1
            except StorageError:
                time.sleep(0)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 100
    assert not path.exists()


@pytest.mark.parametrize("name", ["missing/s.allmem", "nul\0byte", "x" * 250])
def test_where_nothing_can_be_locked_it_is_said_and_the_work_goes_on(
    tmp_path: Path, name: str
) -> None:
    said: list[str] = []
    with saving_alone(tmp_path / name, said.append):
        assert "cannot be locked" in said[0]
