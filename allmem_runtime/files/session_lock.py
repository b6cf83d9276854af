"""Who may save to a session file: one command at a time, until its process ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from allmem_runtime.files.atomic import check_replaceable
from allmem_runtime.files.links import followed
from allmem_runtime.files.locking import only_one


@contextmanager
def saving_alone(path: Path, notice: Callable[[str], None]) -> Iterator[None]:
    """Keep other commands from saving to a session file while the body runs.

    Each save replaces the session file, so the lock lies beside it; it is deleted in the end.

    Args:
        path: the session file, there or not.
        notice: told where nothing can be locked; the body runs all the same.

    Raises:
        StorageError: another process is at it, or the file is write-protected.
    """
    file = followed(path)
    check_replaceable(path)
    with ExitStack() as stack:
        try:
            stack.enter_context(
                only_one(
                    file.parent / f".{file.name}.lock",
                    f"reading into {path}",
                    hint="Wait until it is done, or name another file.",
                    leave=False,
                )
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            notice(f"{path} cannot be locked ({reason}): save to it from one process only.")
        yield
