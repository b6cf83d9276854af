"""A file that was named or found, and what to call it so that no two are called alike."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Named:
    """A file to be read.

    Args:
        path: the file, or ``-``.
        called: what to call it; empty for its name without its folder.
        in_folder: it was found in a folder that was named, or by a pattern.
    """

    path: str
    called: str = ""
    in_folder: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return self.called or Path(self.path).name


def apart(items: Sequence[Named]) -> list[Named]:
    """The files, those that are called alike by their paths from the folder that holds them all.

    A file that is named twice is one file.
    """
    paths: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.path != "-":
            paths[item.name].add(os.path.abspath(item.path))
    return [_distinct(item, paths[item.name]) for item in items]


def _distinct(item: Named, alike: set[str]) -> Named:
    if len(alike) < 2:
        return item
    try:
        folder = os.path.commonpath(alike)
    except ValueError:  # on several drives of Windows
        return replace(item, called=Path(item.path).absolute().as_posix())
    return replace(item, called=Path(os.path.relpath(item.path, folder)).as_posix())
