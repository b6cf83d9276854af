"""The folder for what this machine found out and can find out again: nothing in it is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "ALLMEM_CACHE"
"""Environment variable that names another folder."""


def cache_folder() -> Path:
    """Where it is, by the custom of the system; it need not exist."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    if sys.platform == "win32":
        return _home("LOCALAPPDATA", "AppData/Local") / "allmem"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "allmem"
    return _home("XDG_CACHE_HOME", ".cache") / "allmem"


def _home(variable: str, usual: str) -> Path:
    given = os.environ.get(variable, "")
    # The XDG rules say that relative paths are to be ignored.
    return Path(given) if os.path.isabs(given) else Path.home() / usual
