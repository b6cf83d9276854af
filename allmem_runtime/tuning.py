"""What ``allmem bench`` found out about a model on this machine, and the runtime then uses.

It lies in the user's cache folder: without it everything works, only not always as fast.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from allmem_runtime.engine.probe import runtime_version
from allmem_runtime.engine.threads import cpu_threads
from allmem_runtime.errors import StorageError
from allmem_runtime.files.atomic import replace_text
from allmem_runtime.files.package import Package
from allmem_runtime.files.user_cache import VARIABLE, cache_folder
from allmem_runtime.machine import machine

MAX_BYTES = 1 << 14


def piece_file(package: Package, threads: int | None, operators: str) -> Path:
    """Where the best length of a piece is kept.

    Args:
        package: the model.
        threads: CPU threads of a step; None is what a model takes unless it is told.
        operators: ``native`` or ``portable``.
    """
    facts = [package.digest, machine().digest, cpu_threads(threads), operators, runtime_version()]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return cache_folder() / "pieces" / f"{digest[:40]}.json"


def tuned_piece(package: Package, threads: int | None, operators: str) -> int | None:
    """The length of a piece that this machine reads fastest, or None if it was never measured."""
    if not cache_folder().is_dir():
        return None
    try:
        with piece_file(package, threads, operators).open("rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    piece = found.get("piece") if isinstance(found, dict) else None
    if isinstance(piece, bool) or not isinstance(piece, int):
        return None
    return piece if 1 <= piece <= package.manifest.chunk else None


def keep_piece(
    package: Package, threads: int | None, operators: str, piece: int, facts: dict[str, Any]
) -> Path:
    """Let the runtime use this length of a piece from now on.

    Args:
        package: the model.
        threads: CPU threads of a step; None is what a model takes unless it is told.
        operators: ``native`` or ``portable``.
        piece: most tokens fed at once.
        facts: how it was found, for people.

    Raises:
        StorageError: it cannot be written.
    """
    path = piece_file(package, threads, operators)
    text = json.dumps({"piece": piece, "model": package.manifest.name, **facts}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {path.parent} could not be made: {error.strerror}.",
            f"Name another by the environment variable {VARIABLE}.",
        ) from None
    replace_text(path, text + "\n")
    return path
