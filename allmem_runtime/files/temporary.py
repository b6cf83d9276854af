"""Temporary files and folders beside what they become, and the end of those that nobody writes.

A temporary name tells what it becomes and on which machine. Its writer holds a lock on it, which
goes away with the process: what can be locked on the same machine was left by a killed writer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.files.locking import is_at, lock

_TEMPORARY = re.compile(
    r"\.(?P<becomes>.+)\.(?P<machine>[0-9a-f]{8})-[0-9a-f]{16}\.(tmp|old)", re.DOTALL
)
_MAX_NAME_BYTES = 200
_ONLY_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def is_temporary(name: str) -> bool:
    """Whether a file name is one that ``temporary_name`` makes."""
    return _TEMPORARY.fullmatch(name) is not None


def temporary_name(target: Path, suffix: str = "tmp") -> Path:
    """A name beside ``target`` that nothing has: ``tmp`` for what becomes it, ``old`` for it."""
    name = f".{_label(target.name)}.{_machine()}-{secrets.token_hex(8)}.{suffix}"
    return target.parent / name


@contextmanager
def temporary_file(target: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside ``target``, gone afterwards unless it was renamed.

    Args:
        target: what it is to become; what killed writers of it left is deleted first.
        mode: permissions, from which the user's mask is taken.

    Raises:
        OSError: it cannot be made.
    """
    sweep(target.parent, target.name)
    while True:
        path = temporary_name(target)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        if _claim(path, handle):
            break
        os.close(handle)
    try:
        with os.fdopen(handle, "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A new folder beside ``target``; what lies under its name afterwards is deleted.

    Args:
        target: what it is to become; what killed writers of it left is deleted first.

    Raises:
        OSError: it cannot be made.
    """
    sweep(target.parent, target.name)
    handle: int | None = None
    while True:
        path = temporary_name(target)
        path.mkdir()
        if os.name != "posix":
            break  # no folder can be opened there
        with contextlib.suppress(FileNotFoundError):  # a sweep came first
            handle = os.open(path, _ONLY_READ)
            if _claim(path, handle):
                break
            os.close(handle)
    try:
        yield path
    finally:
        remove(path)
        if handle is not None:
            os.close(handle)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the lock on a file or folder; False where another process has it, or none can be had."""
    handle = _open(path)
    try:
        yield handle is not None and _locks(path, handle) is True
    finally:
        if handle is not None:
            os.close(handle)


def sweep(folder: Path, name: str | None = None) -> None:
    """Delete the temporary files and folders in a folder that killed writers left.

    What another machine or user made, what is a link, and what a living process has stays.

    Args:
        folder: where to look.
        name: of the file or folder they were to become; None for any.
    """
    if os.name != "posix":
        return  # an open file cannot be told from one that was left
    try:
        entries = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return
    for entry in entries:
        found = _TEMPORARY.fullmatch(entry)
        if found is None or found["machine"] != _machine():
            continue
        if name is not None and found["becomes"] != _label(name):
            continue
        path = folder / entry
        if not _own(path):
            continue
        with held(path) as left:
            if not left:
                continue
            if entry.endswith(".old") and name is not None and not os.path.lexists(folder / name):
                with contextlib.suppress(OSError):  # killed between two renames: it goes back
                    path.rename(folder / name)
            else:
                remove(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, as far as possible; no link is followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _own(path: Path) -> bool:
    """Whether it is a file or folder of this user, and not a link."""
    try:
        status = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return kind and status.st_uid == os.getuid()


def _open(path: Path) -> int | None:
    """A file or folder to be locked; None where it cannot be opened, is a link, or is gone."""
    try:
        return os.open(path, _ONLY_READ)
    except OSError:
        return None


def _claim(path: Path, handle: int) -> bool:
    """Lock a new temporary; False where a sweep came first. It stays unlocked where none can be."""
    return os.name != "posix" or _locks(path, handle) is not False


def _locks(path: Path, handle: int) -> bool | None:
    """Whether the lock was to be had; None where this place has no locks."""
    try:
        return lock(handle) and is_at(path, handle)
    except OSError:
        return None


def _label(name: str) -> str:
    """What a temporary name tells of the name it becomes: all of it, unless that is too long."""
    data = os.fsencode(name)
    return name if len(data) <= _MAX_NAME_BYTES else hashlib.sha256(data).hexdigest()[:32]


def _machine() -> str:
    """Eight digits for this machine: a lock may not reach the writers on another one."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
