"""Writing so that a name stands for the old file or folder or the new, never anything between."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from allmem_runtime.errors import StorageError
from allmem_runtime.files.temporary import held, temporary_file, temporary_folder, temporary_name

PRIVATE = 0o600
"""Permissions of a file that only its owner may read."""
USUAL = 0o666
"""Permissions of a file that is no secret; the user's mask is taken from them."""


def replace_file(path: Path, write: Callable[[BinaryIO], object], *, mode: int = PRIVATE) -> None:
    """Write to a temporary file beside ``path``, make sure it is on the disk, rename it.

    Args:
        path: the file to make or replace.
        write: writes the content.
        mode: permissions.

    Raises:
        StorageError: writing failed; what was at ``path`` is unharmed.
    """
    with storage_errors(path), temporary_file(path, mode) as (temporary, file):
        check_replaceable(path)
        write(file)
        file.flush()
        os.fsync(file.fileno())
        if os.name != "posix":
            file.close()  # there, an open file cannot be renamed
        os.replace(temporary, path)
        sync(path.parent)


def check_replaceable(path: Path) -> None:
    """Refuse to replace a file that was made read-only; renaming over it would not ask.

    Raises:
        StorageError: nobody may write to it.
    """
    if path.is_file() and not path.stat().st_mode & 0o222:
        raise StorageError(
            f"{path} is write-protected.", "Allow writing with `chmod u+w`, or name another file."
        )


def replace_text(path: Path, text: str, *, mode: int = PRIVATE) -> None:
    """The same for a text, in UTF-8."""
    replace_file(path, lambda file: file.write(text.encode()), mode=mode)


@contextmanager
def publish_file(path: Path, *, mode: int = USUAL) -> Iterator[Path]:
    """The same for content that a library writes to a file it opens itself.

    Args:
        path: the file to make or replace.
        mode: permissions.

    Yields:
        A path to write to; it becomes ``path`` when the block ends without an error.

    Raises:
        StorageError: writing failed, in the block too; what was at ``path`` is unharmed.
    """
    with storage_errors(path), temporary_folder(path) as folder:
        made = folder / path.name
        yield made
        made.chmod(mode & folder.stat().st_mode)
        sync(made)
        os.replace(made, path)
        sync(path.parent)


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, made beside ``path``; it becomes ``path`` when the block ends.

    What was at ``path`` is replaced in one step, links and files too; where a file system cannot do
    that, in two, and a kill between them is made good when ``path`` is written again. Who may
    replace what is for the caller to decide.

    Args:
        path: the folder to make or replace.

    Raises:
        StorageError: it cannot be written; what was at ``path`` is unharmed. Errors of the block
            pass as they are.
    """
    with ExitStack() as stack:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            made = stack.enter_context(temporary_folder(path))
        yield made
        with storage_errors(path):
            sync_folder(made)
            if not os.path.lexists(path):
                os.rename(made, path)
            elif not _exchange(made, path):
                _replace_in_two_steps(made, path)
            sync(path.parent)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Say of what the operating system refuses in the block that ``path`` could not be written."""
    try:
        if "\0" in str(path):
            raise OSError(errno.EINVAL, "its name holds a NUL")
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "Make room on the disk, or name another place." if full else "Check the folder."
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}.", hint
        ) from error


def sync_folder(folder: Path) -> None:
    """Put a folder with all it holds on the disk; no link is followed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            if file.is_file() and not file.is_symlink():
                sync(file)
        sync(Path(parent))


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk; elsewhere neither can be opened for it."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where that is not possible.

    Source: renameat2(2), with RENAME_EXCHANGE.
    """
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), os.fspath(other))


def _replace_in_two_steps(made: Path, path: Path) -> None:
    old = temporary_name(path, "old")
    with held(path):
        os.rename(path, old)
        try:
            os.rename(made, path)
        except BaseException:
            os.rename(old, path)
            raise
    os.rename(old, made)  # where it is deleted
