"""A link to a session stands for the session, wherever it is read, saved, locked or deleted."""

from __future__ import annotations

import os
from pathlib import Path


def followed(path: Path) -> Path:
    """Where a link leads, whether or not anything is there; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
