"""What the harness must know of a format from outside: making, spoiling and reading it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

Files = dict[str, bytes]
"""Contents of a folder by the paths in it."""
Mutate = Callable[[Files, Random], Files]
"""Spoils the files: those that changed, by name."""
Read = Callable[[Path], None]
"""Reads a folder as a user's command does; raises what the command would meet."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format and its ways.

    Args:
        name: its own, as ``--format`` takes it.
        make: writes a good example into an empty folder.
        mutate: spoils such an example in memory, the same for the same random numbers.
        reader: prepares reading, given the folder of the good example; what is slow, such as
            loading a model, is done here once.
        memory: bytes that reading one example may take beyond what the process has by then.
        seconds: of CPU time that reading one example may take.
    """

    name: str
    make: Callable[[Path], None]
    mutate: Mutate
    reader: Callable[[Path], Read]
    memory: int = 1 << 30
    seconds: float = 10.0


def names_in(folder: Path) -> list[str]:
    """Paths of all files of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]


def files_in(folder: Path) -> Files:
    """All files of a folder."""
    return {name: (folder / name).read_bytes() for name in names_in(folder)}


def write_files(folder: Path, files: Files) -> None:
    """Write files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # what is mapped by somebody stays as it is
        path.write_bytes(data)
