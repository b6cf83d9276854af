"""A file or folder is the old one or the new one, and what killed writers left is swept."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.writers import writing

from allmem_runtime import StorageError
from allmem_runtime.files import atomic, temporary
from allmem_runtime.files.atomic import publish_file, publish_folder, replace_file, replace_text
from allmem_runtime.files.temporary import sweep, temporary_name

pytestmark = pytest.mark.skipif(os.name != "posix", reason="open files cannot be told apart there")

KINDS = ("file", "folder")


def publish(kind: str, target: Path, text: str = "new") -> None:
    if kind == "file":
        replace_text(target, text)
    else:
        with publish_folder(target) as made:
            (made / "text").write_text(text)


@pytest.fixture(params=["in one step", "in two steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to replace a folder."""
    if request.param == "in two steps":
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "model"
    with writing(kind, target) as left:
        pass
    assert left.exists() and not target.exists()

    publish(kind, target)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_living_writer_has_is_not_swept(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "model"
    with writing(kind, target) as made:
        publish(kind, target)
        assert made.exists()
        assert sorted(os.listdir(tmp_path)) == sorted([made.name, "model"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_writers_of_another_name_left_is_not_swept(tmp_path: Path, kind: str) -> None:
    with writing(kind, tmp_path / "other") as left:
        pass
    publish(kind, tmp_path / "model")
    assert left.exists()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["model"]


def test_look_alikes_stay(tmp_path: Path) -> None:
    target = tmp_path / "s.allmem"
    ours = temporary_name(target).name
    names = [
        ".s.allmem.tmp", ".s.allmem.old.tmp", ".s.allmem.0123abcd.tmp", f"{ours}.bak", ours[1:],
        f"{ours[:-4]}.txt", f".s.allmem.00000000-{'0' * 16}.tmp",
        f".more.of{ours}", ours.upper(), "s.allmem~",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).write_text("mine")
    replace_text(target, "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "s.allmem"])


def test_what_another_machine_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(temporary.platform, "node", lambda: "elsewhere")
        left = temporary_name(target)
    left.mkdir()
    publish("folder", target)
    assert left.exists()


def test_what_another_user_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = temporary_name(tmp_path / "model")
    left.write_text("theirs")
    monkeypatch.setattr(temporary.os, "getuid", lambda: os.stat(left).st_uid + 1)
    publish("file", tmp_path / "model")
    assert left.exists()


def test_links_are_neither_swept_nor_followed(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    place = tmp_path / "place"
    place.mkdir()
    target = place / "model"
    links = [temporary_name(target) for _ in range(3)]
    links[0].symlink_to(thesis, target_is_directory=True)
    links[1].symlink_to(thesis / "chapter.txt")
    left = links[2]
    left.mkdir()
    (left / "link").symlink_to(thesis, target_is_directory=True)

    publish("folder", target)
    assert not left.exists() and links[0].is_symlink() and links[1].is_symlink()
    assert (thesis / "chapter.txt").read_text() == "years of work"


def test_a_new_temporary_that_a_sweep_took_first_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = temporary.lock, 0

    def lock(handle: int) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:  # between making it and locking it
            for path in tmp_path.iterdir():
                temporary.remove(path)
        return real(handle)

    monkeypatch.setattr(temporary, "lock", lock)
    publish("folder", tmp_path / "folder")
    calls = 0
    publish("file", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("kind", KINDS)
def test_without_locks_nothing_is_swept_and_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def none(handle: int) -> bool:
        raise OSError("No locks available")

    monkeypatch.setattr(temporary, "lock", none)
    with writing(kind, tmp_path / "model") as left:
        pass
    publish(kind, tmp_path / "model")
    assert left.exists() and (tmp_path / "model").exists()


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("old", ["folder", "file", "link"])
def test_whatever_was_there_is_replaced_and_links_are_not_followed(
    tmp_path: Path, old: str
) -> None:
    target, place = tmp_path / "model", tmp_path / "elsewhere"
    place.mkdir()
    (place / "text").write_text("old")
    if old == "folder":
        shutil.copytree(place, target)
    elif old == "file":
        target.write_text("old")
    else:
        target.symlink_to(place, target_is_directory=True)

    publish("folder", target)
    assert not target.is_symlink() and (target / "text").read_text() == "new"
    assert (place / "text").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "model"]


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError("wrong")])
def test_a_failure_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    publish("folder", tmp_path / "model", "old")
    with pytest.raises(type(error)), publish_folder(tmp_path / "model") as made:
        (made / "text").write_text("new")
        raise error
    assert (tmp_path / "model" / "text").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("function", ["rename", "replace", "fsync"])
@pytest.mark.usefixtures("steps")
def test_wherever_the_disk_fails_the_old_folder_or_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    real: Callable[..., None] = getattr(os, function)
    for fail_at in range(1, 10):
        calls = 0

        def fail(*arguments: object, fail_at: int = fail_at) -> None:
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(5, "Input/output error")
            real(*arguments)

        publish("folder", tmp_path / "model", "old")
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, function, fail)
            try:
                publish("folder", tmp_path / "model")
            except StorageError:
                assert (tmp_path / "model" / "text").read_text() in ("old", "new")
        publish("folder", tmp_path / "model", "again")
        assert os.listdir(tmp_path) == ["model"]
        if calls < fail_at:
            break
    else:
        pytest.fail("it does not end")


@pytest.mark.usefixtures("steps")
def test_killed_at_any_call_it_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for calls in range(100):
        publish("folder", target, "old")
        child = os.fork()
        if child == 0:
            try:
                dying(calls, "open", "mkdir", "rename", "fsync", "unlink", "rmdir", "close")
                publish("folder", target)
                os._exit(0)
            finally:
                os._exit(1)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0

        with pytest.raises(ValueError), publish_folder(target):
            raise ValueError("the next writer fails")
        assert (target / "text").read_text() in (("old", "new") if killed else ("new",))
        assert os.listdir(tmp_path) == ["model"]
        if not killed:
            break
    assert 10 < calls < 99


def dying(calls: int, *names: str) -> None:
    """Let this process end at one of its calls to the operating system."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls -= 1
            if calls < 0:
                os._exit(9)
            return function(*arguments, **options)

        return call

    for name in names:
        setattr(os, name, wrapped(getattr(os, name)))


def test_killed_between_two_renames_the_old_folder_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "model"
    publish("folder", target, "old")
    target.rename(temporary_name(target, "old"))
    with pytest.raises(ValueError), publish_folder(target):
        raise ValueError("the next writer fails")
    assert os.listdir(tmp_path) == ["model"] and (target / "text").read_text() == "old"


def test_permissions_are_those_asked_for(tmp_path: Path) -> None:
    def mode(name: str) -> int:
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    (tmp_path / "plain").touch()
    (tmp_path / "plain folder").mkdir()
    replace_file(tmp_path / "secret", lambda file: file.write(b"read"))
    replace_text(tmp_path / "usual", "told", mode=atomic.USUAL)
    with publish_file(tmp_path / "told") as made:
        made.touch(0o600)
    with publish_file(tmp_path / "kept", mode=atomic.PRIVATE) as made:
        made.touch()
    publish("folder", tmp_path / "folder")
    assert mode("secret") == mode("kept") == 0o600
    assert mode("usual") == mode("told") == mode("plain")
    assert mode("folder") == mode("plain folder")


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 120, "a b\n.tmp"])
def test_names_of_any_length_and_kind(tmp_path: Path, name: str) -> None:
    with writing("folder", tmp_path / name) as left:
        pass
    publish("folder", tmp_path / name)
    assert os.listdir(tmp_path) == [name] and not left.exists()
