"""A folder that is made once, by whichever test process is the first to need it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

SharedFolder = Callable[[str, Callable[[Path], object]], Path]
"""The folder of a name, and what fills it the first time."""


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """``folder``, after ``make(folder)`` has filled it in this process or in another one.

    Args:
        folder: not there before; its parents are made.
        make: fills the folder; where it fails, the next process that needs the folder tries again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_name(f"{folder.name}.made")
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
