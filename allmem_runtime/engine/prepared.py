"""Weights laid out for this CPU beforehand: where they lie, and whether they may be used.

ONNX Runtime copies most weights into a layout of its own when it opens a model. What it saves of
that can be mapped by the next process instead, but holds for one model, one CPU, one version of
ONNX Runtime and one operator library.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_runtime import spec
from allmem_runtime.errors import AllMemError, ModelFileError
from allmem_runtime.files.digest import file_digest
from allmem_runtime.files.package import Package
from allmem_runtime.files.record_signature import is_signed
from allmem_runtime.files.regular import open_regular
from allmem_runtime.files.user_cache import cache_folder
from allmem_runtime.machine import machine
from allmem_runtime.strict_json import parse_object

RECORD_FILE = "prepared.json"
FILES = (spec.GRAPH_FILE, spec.WEIGHTS_FILE)
FORMAT = 1
_FOLDER = "prepared"
_MAX_RECORD_BYTES = 1 << 16
_MOST_FOLDERS = 256

# What the facts are about, in the order in which a difference is told.
_DIFFERENCES = {
    "format": "by another version of this program",
    "model": "of another export",
    "cpu": "for another CPU",
    "onnxruntime": "by another version of ONNX Runtime",
    "operators": "with other operators",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of prepared weights.

    Attributes:
        folder: with weights that may be used; None if there are none.
        notice: why some that are there are not used; empty if there is nothing to say.
    """

    folder: Path | None = None
    notice: str = ""

    @property
    def graph(self) -> Path | None:
        """The graph to open."""
        return None if self.folder is None else self.folder / spec.GRAPH_FILE


def facts(package: Package, library: Path | None) -> dict[str, Any]:
    """All that prepared weights depend on.

    Args:
        package: the model; the digest of its graph covers those of its weights.
        library: the operators; None for the function bodies in the graph.
    """
    import onnxruntime as ort  # describing a model without prepared weights does not need it

    return {
        "format": FORMAT,
        "model": package.digest,
        "cpu": machine().digest,
        "onnxruntime": f"{ort.__version__} {ort.get_build_info()}",
        "operators": "portable" if library is None else file_digest(library),
    }


def folder_name(about: dict[str, Any]) -> str:
    """Name of the folder for these facts."""
    text = json.dumps(about, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def bases(package: Package) -> tuple[Path, Path]:
    """Folders that prepared weights may lie in: beside the model, and in the user's cache.

    Raises:
        ModelFileError: the one beside the model is a link: nothing is read, written or deleted
            where it leads.
    """
    own = package.folder / _FOLDER
    if own.is_symlink():
        raise ModelFileError(
            f"{own} is a link to {own.readlink()}; prepared weights lie in the model's own folder.",
            "Delete the link: nothing is read, written or deleted where it leads.",
        )
    return own, cache_folder() / _FOLDER


def find(package: Package, library: Path | None) -> Found:
    """Prepared weights for a model as it is to be opened now.

    Args:
        package: the model.
        library: the operators; None for the function bodies in the graph.
    """
    try:
        places = [base for base in bases(package) if base.is_dir()]
    except ModelFileError as error:
        return Found(notice=f"{error.message} {error.hint}")
    if not places:
        return Found()
    about = facts(package, library)
    name, problems = folder_name(about), []
    for base in places:
        folder = base / name
        if is_folder(folder):
            problem = check(folder, about)
            if not problem:
                return Found(folder)
            problems.append((folder, problem))
    problems += [
        (folder, difference(record["facts"], about))
        for base in places
        for folder, record in records(base)
        if folder.name != name and is_of(record, package)
    ]
    if not problems:
        return Found()
    folder, problem = problems[0]
    return Found(
        notice=f"Opening without the prepared weights in {folder}: {problem}. "
        f"`allmem prepare {package.folder}` makes new ones."
    )


def check(folder: Path, about: dict[str, Any], *, thorough: bool = False) -> str:
    """Why prepared weights may not be used; empty if they may.

    A file whose size, times and number on the disk are as they were when it was written was
    written by nobody since. Any other is read and its SHA-256 compared.

    Args:
        folder: theirs.
        about: facts that they must have been made for.
        thorough: read all files in any case.
    """
    record = read_record(folder)
    if record is None:
        return f"its {RECORD_FILE} is damaged, or was not made here by this user"
    if record["facts"] != about:
        return difference(record["facts"], about)
    for name in FILES:
        path, known = folder / name, record["files"][name]
        try:
            found = stamp(path)
        except (OSError, ValueError) as error:
            return f"{name} cannot be used ({error})"
        if found[0] != known["stamp"][0]:
            return f"{name} is damaged: it has {found[0]} bytes, not {known['stamp'][0]}"
        if thorough or found != known["stamp"]:
            try:
                digest = file_digest(path)
            except AllMemError as error:
                return error.message.rstrip(".")
            if digest != known["sha256"]:
                return f"{name} is damaged: its SHA-256 is not the one it had"
    return ""


def stamp(path: Path) -> list[int]:
    """Size, times of change and number of a file.

    Raises:
        OSError: it is not there.
        ValueError: it is not a regular file.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of prepared weights, if this user's program wrote it."""
    try:
        path = folder / RECORD_FILE
        if path.is_symlink():
            return None
        with open_regular(path) as file:
            data = parse_object(file.read(_MAX_RECORD_BYTES))
    except (OSError, ValueError):
        return None
    given = data.pop("seal", None)
    return data if is_signed(data, given) else None


def records(base: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All folders of prepared weights with a record of this user, in the order of their names."""
    try:
        folders = sorted(base.iterdir())[:_MOST_FOLDERS]
    except OSError:
        return []
    found = [(folder, read_record(folder)) for folder in folders if is_folder(folder)]
    return [(folder, record) for folder, record in found if record is not None]


def is_folder(path: Path) -> bool:
    """Whether there is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_of(record: dict[str, Any], package: Package) -> bool:
    """Whether a record speaks of a model: the same one, or what lay in its place before."""
    same_place = record["graph"] == str(package.graph.resolve())
    return same_place or bool(record["facts"].get("model") == package.digest)


def difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Why weights made for some facts are not for others, as a clause."""
    for key, what in _DIFFERENCES.items():
        if theirs.get(key) != ours.get(key):
            return f"they were made {what}"
    return "they were made otherwise"
