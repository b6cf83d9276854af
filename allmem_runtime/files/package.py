"""Open a model folder: manifest, limits, path containment, digests. Nothing in it is executed."""

from __future__ import annotations

import dataclasses
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from allmem_runtime import spec
from allmem_runtime.config import MAX_MANIFEST_BYTES, Manifest
from allmem_runtime.errors import ModelFileError
from allmem_runtime.files import onnx_scan
from allmem_runtime.files.containment import leaves_folder
from allmem_runtime.files.digest import file_digest
from allmem_runtime.files.graph_nodes import read_nodes
from allmem_runtime.files.graph_shapes import check_shapes
from allmem_runtime.files.signature import input_shapes
from allmem_runtime.quantities import format_bytes
from allmem_runtime.strict_json import parse_object

MAX_TEXT_FILE_BYTES = 1 << 20
MAX_TOKENIZER_BYTES = 1 << 28
SMALL_STATE_BYTES = 1 << 30
STATE_PER_BYTE = 1024
"""A state above the small one may have this many bytes for each byte of the folder's files: that of
SmolLM2-135M in 4 bits with a window of a million tokens would have about 300."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z")
_REMEDY = "Export the model again, or fetch an intact copy."


@dataclass(frozen=True)
class Package:
    """A model on disk whose manifest, graph file and paths have been checked.

    Args:
        graph: path of model.onnx.
        manifest: read from the graph's metadata, which is the truth.
        scan: what the walk through the graph file found.
    """

    graph: Path
    manifest: Manifest
    scan: onnx_scan.Scan

    @property
    def folder(self) -> Path:
        """The folder the model lies in."""
        return self.graph.parent

    @property
    def tokenizer(self) -> Path:
        """Path of tokenizer.json."""
        return self.folder / spec.TOKENIZER_FILE

    @cached_property
    def digest(self) -> str:
        """SHA-256 of model.onnx; its metadata holds the digests of the other files."""
        return file_digest(self.graph)

    @cached_property
    def tokenizer_digest(self) -> str:
        """SHA-256 of tokenizer.json."""
        record = self.manifest.files.get(spec.TOKENIZER_FILE)
        return record.sha256 if record else file_digest(self.tokenizer)

    @property
    def chat_template(self) -> str | None:
        """The model's chat template, or None if it has none."""
        path = self.folder / spec.CHAT_TEMPLATE_FILE
        return _read_text(path, MAX_TEXT_FILE_BYTES) if _present(path) else None

    @property
    def generation(self) -> dict[str, Any]:
        """Contents of generation_config.json; empty if there is none."""
        path = self.folder / spec.GENERATION_FILE
        if not _present(path):
            return {}
        try:
            return parse_object(_read_text(path, MAX_TEXT_FILE_BYTES))
        except ValueError as error:
            raise ModelFileError(f"{path} is not JSON ({error}).", _REMEDY) from None

    def verify(self) -> None:
        """Read every file named in the manifest and compare its SHA-256.

        Raises:
            ModelFileError: a file differs; the text names it.
        """
        for name, record in sorted(self.manifest.files.items()):
            found = file_digest(self.folder / name)
            if found != record.sha256:
                raise ModelFileError(
                    f"{self.folder / name} has the SHA-256 {found}; the manifest says "
                    f"{record.sha256}.",
                    "The file was changed or damaged: fetch an intact copy.",
                )


def open_package(path: str | Path) -> Package:
    """Open a model folder, or the model.onnx in one.

    Raises:
        ModelFileError: anything in it is missing, damaged or not allowed; the text names the file
            and what to do.
    """
    graph = _graph_path(Path(path))
    _check_file(graph, None)
    scan = onnx_scan.scan(graph)
    if spec.METADATA_KEY not in scan.metadata:
        raise ModelFileError(
            f"{graph} has no metadata {spec.METADATA_KEY!r}, so it is no AllMem model.",
            "Make one with `allmem export`.",
        )
    manifest = Manifest.from_json(scan.metadata[spec.METADATA_KEY], f"metadata of {graph}")
    _check_copy(graph.parent / spec.MANIFEST_FILE, manifest)
    for name, record in manifest.files.items():
        _check_file(graph.parent / name, record.bytes)
    _check_state(graph, manifest)
    for name, reach in scan.external.items():
        _check_external(graph, name, reach, manifest)
    check_shapes(read_nodes(graph, onnx_scan.MAX_FIELDS), input_shapes(manifest), graph)
    if spec.TOKENIZER_FILE not in manifest.files:
        _check_file(graph.parent / spec.TOKENIZER_FILE, None)
    size = (graph.parent / spec.TOKENIZER_FILE).stat().st_size
    if size > MAX_TOKENIZER_BYTES:
        raise ModelFileError(
            f"{graph.parent / spec.TOKENIZER_FILE} has {size} bytes; at most "
            f"{MAX_TOKENIZER_BYTES} are read.",
            _REMEDY,
        )
    return Package(graph, manifest, scan)


def _graph_path(path: Path) -> Path:
    try:
        graph = path / spec.GRAPH_FILE if path.is_dir() else path
        exists = graph.exists()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise ModelFileError(f"{path!r} is no usable path ({error}).", "Check the path.") from None
    if not exists:
        folder = path.is_dir()
        what = f"The folder {path} has no {spec.GRAPH_FILE}." if folder else f"There is no {path}."
        raise ModelFileError(
            what, "Give a model folder, or the model.onnx in one; `allmem export` makes both."
        )
    if graph.name != spec.GRAPH_FILE and graph.suffix != ".onnx":
        raise ModelFileError(
            f"{graph} is not an ONNX file.", "Give a model folder, or the model.onnx in one."
        )
    return graph


def _present(path: Path) -> bool:
    """Whether an optional file is there; if it is, it must pass the checks."""
    if not path.is_symlink() and not path.exists():
        return False
    _check_file(path, None)
    return True


def _check_copy(path: Path, manifest: Manifest) -> None:
    """allmem.json is a convenience for readers: it must say what the graph says."""
    if not _present(path):
        return
    copy = Manifest.from_json(_read_text(path, MAX_MANIFEST_BYTES), str(path))
    for field in dataclasses.fields(Manifest):
        here, there = getattr(copy, field.name), getattr(manifest, field.name)
        if here != there:
            if isinstance(here, Mapping) and isinstance(there, Mapping):
                names = sorted(here.keys() | there.keys())
                name = next(name for name in names if here.get(name) != there.get(name))
                said = f"has another {name[:80]!r} in its {field.name} than {spec.GRAPH_FILE}"
            else:
                said = f"says {field.name} is {str(here)[:200]}, {spec.GRAPH_FILE} says "
                said += str(there)[:200]
            raise ModelFileError(
                f"{path} {said}.",
                f"Both come from one export; the files were mixed. {_REMEDY}",
            )


def _check_state(graph: Path, manifest: Manifest) -> None:
    """A folder of some kilobytes does not ask for all memory there is."""
    files = sum(record.bytes for record in manifest.files.values())
    most = max(SMALL_STATE_BYTES, STATE_PER_BYTE * files)
    if manifest.state.nbytes > most:
        raise ModelFileError(
            f"{graph} wants a state of {format_bytes(manifest.state.nbytes)} beside "
            f"{format_bytes(files)} of files; at most {format_bytes(most)} are allowed.",
            "No export of a trained model is like that: do not open this one.",
        )


def _check_external(graph: Path, name: str, reach: int, manifest: Manifest) -> None:
    if not _PLAIN_NAME.match(name):
        raise ModelFileError(
            f"{graph} keeps data in {name[:200]!r}, which is not a plain file name.",
            "A model may only read files of its own folder; do not open this one.",
        )
    record = manifest.files.get(name)
    if record is None:
        raise ModelFileError(f"{graph} keeps data in {name}, which its manifest lacks.", _REMEDY)
    if reach > record.bytes:
        raise ModelFileError(
            f"{graph} wants {reach} bytes of {name}, which has {record.bytes}.", _REMEDY
        )


def _check_file(path: Path, size: int | None) -> None:
    """The file is a regular one of the right size, inside the folder or its hub cache."""
    try:
        target = leaves_folder(path)
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    if target is not None:
        raise ModelFileError(
            f"{path} is a link to {target}, outside the model's folder.",
            "Copy the file into the folder if you trust it.",
        )
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path} is not a regular file.", _REMEDY)
    if size is not None and status.st_size != size:
        raise ModelFileError(
            f"{path} has {status.st_size} bytes; the manifest says {size}.",
            "The copy is incomplete or of another export: fetch it again.",
        )


def _read_text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(data) > limit:
        raise ModelFileError(f"{path} is larger than {limit} bytes.", _REMEDY)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} is not UTF-8 (byte {error.start}).", _REMEDY) from None


def _unreadable(path: Path, error: OSError) -> ModelFileError:
    reason = error.strerror or str(error)
    return ModelFileError(f"{path} cannot be read: {reason}.", "Check the path and permissions.")
