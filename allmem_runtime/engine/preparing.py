"""Write weights laid out for this CPU, so that later starts map them: all of it or nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from allmem_runtime.engine import prepared
from allmem_runtime.engine.devices import Device
from allmem_runtime.engine.opening import Wanted, save_prepared
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import ModelFileError, StorageError
from allmem_runtime.files.atomic import publish_folder, storage_errors
from allmem_runtime.files.digest import file_digest
from allmem_runtime.files.locking import only_one
from allmem_runtime.files.package import Package
from allmem_runtime.files.record_signature import sign
from allmem_runtime.files.temporary import is_temporary, sweep
from allmem_runtime.files.user_cache import VARIABLE
from allmem_runtime.machine import machine
from allmem_runtime.quantities import format_bytes

_LOCK = ".lock"
_NAME = re.compile(r"[0-9a-f]{32}|\.making-.*")  # the latter was left by version 0.1
_SPARE_BYTES = 16 << 20
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def prepare(
    package: Package, library: Path | None, *, threads: int | None = None, again: bool = False
) -> Path:
    """Prepare a model for this CPU, unless that was done.

    Weights that were prepared for what lay here before, on this CPU, are deleted.

    Args:
        package: the model.
        library: the operators it will be opened with; None for the function bodies in the graph.
        threads: CPU threads of the work.
        again: do it although it was done.

    Returns:
        The folder of the prepared weights, beside the model, or in the user's cache folder where
        the model's own cannot be written.

    Raises:
        StorageError: the disk is full, no folder can be written, or another process is at it.
        ModelFileError: the model does not load.
    """
    about = prepared.facts(package, library)
    name = prepared.folder_name(about)
    if not again:
        for base in prepared.bases(package):
            if prepared.is_folder(base / name) and not prepared.check(
                base / name, about, thorough=True
            ):
                _remove_outdated(package, base / name)
                return base / name
    base = _writable(package)
    with storage_errors(base), only_one(base / _LOCK, "preparing this model"):
        sweep(base)
        if (base / name).is_symlink():
            (base / name).unlink()
        elif (base / name).is_dir() and prepared.check(base / name, about):
            shutil.rmtree(base / name, ignore_errors=True)  # damaged, and in the way
        _check_room(package, base)
        with publish_folder(base / name) as new:
            new.chmod(0o755)
            wanted = Wanted(package, Device("cpu", 0, ""), EngineOptions(threads=threads))
            try:
                save_prepared(wanted, library, new)
            except ModelFileError:
                if shutil.disk_usage(base).free < _SPARE_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
                raise
            _write_record(new, package, about)
    _remove_outdated(package, base / name)
    return base / name


def remove(package: Package) -> list[Path]:
    """Delete all weights that were prepared from a model, the damaged ones beside it too.

    Returns:
        The folders that were deleted.

    Raises:
        StorageError: one cannot be deleted.
    """
    removed = []
    for base in prepared.bases(package):
        own = base.parent == package.folder
        folders = [
            folder for folder, record in prepared.records(base) if prepared.is_of(record, package)
        ]
        if own and base.is_dir():
            folders = sorted(
                path
                for path in base.iterdir()
                if _NAME.fullmatch(path.name) or is_temporary(path.name)
            )
        for folder in folders:
            with storage_errors(base):
                if folder.is_symlink():
                    folder.unlink()
                else:
                    shutil.rmtree(folder)
            removed.append(folder)
        if own and base.is_dir():
            with contextlib.suppress(OSError):
                (base / _LOCK).unlink(missing_ok=True)
                base.rmdir()
    return removed


def _writable(package: Package) -> Path:
    """The first folder for prepared weights that can be written to."""
    refusals = []
    for base in prepared.bases(package):
        with storage_errors(base):
            try:
                base.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=base):
                    return base
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise
                refusals.append(f"{base}: {error.strerror}")
    raise StorageError(
        f"No folder for the prepared weights can be written ({'; '.join(refusals)}).",
        f"Name another by the environment variable {VARIABLE}.",
    )


def _check_room(package: Package, base: Path) -> None:
    """Refuse before writing: how ONNX Runtime fails on a full disk depends on its version."""
    weights = sum(package.manifest.files[name].bytes for name in package.scan.external)
    # The weights as they are, and laid out once more.
    needed = 2 * (weights + package.graph.stat().st_size) + _SPARE_BYTES
    free = shutil.disk_usage(base).free
    if free < needed:
        raise StorageError(
            f"Preparing takes up to {format_bytes(needed)} in {base}, and {format_bytes(free)} are "
            "free.",
            "Make room on that disk.",
        )


def _write_record(folder: Path, package: Package, about: dict[str, Any]) -> None:
    files = {}
    for name in prepared.FILES:
        path = folder / name
        path.chmod(0o644)
        files[name] = {"sha256": file_digest(path), "stamp": prepared.stamp(path)}
    record: dict[str, Any] = {
        "facts": about,
        "files": files,
        "graph": str(package.graph.resolve()),
        "name": package.manifest.name,
        "cpu": machine().name,
    }
    record["seal"] = sign(record, make_key=True)
    with (folder / prepared.RECORD_FILE).open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)


def _remove_outdated(package: Package, kept: Path) -> None:
    """Delete what nobody will open any more; other CPUs may share the folder."""
    for base in prepared.bases(package):
        for folder, record in prepared.records(base):
            same_place = record["graph"] == str(package.graph.resolve())
            same_cpu = record["facts"].get("cpu") == machine().digest
            if folder != kept and same_place and same_cpu:
                shutil.rmtree(folder, ignore_errors=True)


def disk_bytes(folder: Path) -> int:
    """Bytes that the files of a folder of prepared weights have."""
    return sum(path.stat().st_size for path in folder.iterdir())
