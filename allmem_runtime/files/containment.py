"""Links that lead out of a model's folder are not followed, whoever reads, writes or copies there.

A cache of the model hub is the one exception: its snapshots are links into the blobs beside them.
"""

from __future__ import annotations

from pathlib import Path


def leaves_folder(path: Path) -> Path | None:
    """Where a file or folder leads to, if a link takes it out of the folder it stands in.

    Args:
        path: of something in a folder that was named by the user; the folder may itself be a link.

    Returns:
        None if it stays inside, or is not there at all.

    Raises:
        OSError: a link leads nowhere, or round in a circle.
    """
    if not path.is_symlink():
        return None
    try:
        target = path.resolve(strict=True)
    except RuntimeError as error:
        raise OSError(str(error)) from None
    return None if _inside(path.parent.resolve(), target) else target


def _inside(folder: Path, target: Path) -> bool:
    """A hub cache is ``<repository>/snapshots/<revision>/…``, linked to ``<repository>/blobs``."""
    if target.parent == folder:
        return True
    for parent in folder.parents:
        if parent.name == "snapshots":
            return target.parent == parent.parent / "blobs"
    return False
