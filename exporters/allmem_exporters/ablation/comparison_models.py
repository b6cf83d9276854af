"""Makes the models of a comparison from one checkpoint; shared weights are stored once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from allmem_exporters.errors import ExportError
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.package_writer import embed_manifest
from allmem_runtime.config import FileRecord, Manifest
from allmem_runtime.evaluation.rows import ROWS_FILE, Row, write_rows
from allmem_runtime.files.digest import file_digest
from allmem_runtime.files.package import open_package
from allmem_runtime.options import from_keywords
from allmem_runtime.spec import GRAPH_FILE, MANIFEST_FILE

OWN_DATA_FILE = "row.data"
"""Weights that a row does not share with the first one."""
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the values of an initializer lie."""

    file: str
    offset: int
    length: int


def export_comparison_models(
    checkpoint: Path,
    out: Path,
    options: ExportOptions | None = None,
    *,
    longest: int,
    twin: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> list[Row]:
    """Export what belongs into every table: full attention, window and sinks, memory, no writes.

    With windows by head, the model with one window for all heads and as many rows stands beside
    them.

    Args:
        checkpoint: with the trained memories.
        out: folder for the model folders and the list of rows.
        options: of ``export``, for all rows; ``memory`` and ``check`` are chosen here.
        longest: tokens that the row with full attention sees at once.
        twin: a checkpoint of the same decoder whose memories were trained without writing; one
            more row.
        report: is told what happens, a line at a time.
        given: fields of ``ExportOptions`` by name; they count more than ``options``.

    Returns:
        The rows, the first to compare the others with.

    Raises:
        ExportError: the folder cannot be written, or an option is refused.
        ConversionError: a checkpoint is damaged or of another kind.
    """
    common = from_keywords(ExportOptions, given, ExportError, options)
    common = dataclasses.replace(common, memory="enabled", check=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ROWS_FILE).unlink(missing_ok=True)  # it stands for finished folders
    except OSError as error:
        raise ExportError(f"{out} cannot be written ({error.strerror}).", "Name another.") from None
    base = out / "allmem"
    manifest = export(checkpoint, base, common, report=report)
    same: dict[str, Any] = {"sinks": manifest.sinks, "chunk": manifest.chunk}
    if manifest.windows is None:
        same["window"] = manifest.window
    by_head = [window for layer in manifest.windows or () for window in layer]
    one = {**same, "windows": None, "state_budget": None}
    full = {**one, "window": max(longest, manifest.window), "sinks": 0}
    others: list[tuple[str, Path, str, dict[str, Any]]] = [
        ("window", checkpoint, "disabled", same),
        ("full", checkpoint, "disabled", full),
        ("frozen", checkpoint, "frozen", same),
    ]
    if twin is not None:
        others.append(("twin", twin, "frozen", same))
    if by_head:
        equal = {**one, "window": sum(by_head) // len(by_head)}
        others.append(("uniform", checkpoint, "enabled", equal))
    for name, source, memory, sizes in others:
        export(source, out / name, common, memory=memory, report=report, **sizes)
        share(base, out / name, report)
    rows = [
        Row("full attention", out / "full"),
        Row("window + sinks", out / "window"),
        Row("AllMem", base),
        Row("AllMem, writes off", out / "frozen"),
        Row("AllMem, reset", base, reset=True),
    ]
    if twin is not None:
        rows.append(Row("twin that never writes", out / "twin"))
    if by_head:
        rows.append(Row("AllMem, one window", out / "uniform"))
    write_rows(out, rows)
    return rows


def share(base: Path, folder: Path, report: Callable[[str], None] = lambda line: None) -> None:
    """Let a model folder use the weights of another one where they are equal.

    The files of ``base`` get a second name in ``folder`` (a hard link), and what differs goes
    into a file of its own. Where links cannot be made, the folder stays as it is.

    Args:
        base: whose weights are used.
        folder: changed in place; opens as before.
        report: is told where links cannot be made.
    """
    first = onnx.load(base / GRAPH_FILE, load_external_data=False)
    known = {tensor.name: _place(tensor) for tensor in first.graph.initializer if _outside(tensor)}
    graph = onnx.load(folder / GRAPH_FILE, load_external_data=False)
    old = {_place(t).file for t in graph.graph.initializer if _outside(t)}
    shared: set[str] = set()
    with (folder / OWN_DATA_FILE).open("wb") as own:
        for tensor in graph.graph.initializer:
            if not _outside(tensor):
                continue
            place, there = _place(tensor), known.get(tensor.name)
            values = _values(folder, place)
            if there is not None and np.array_equal(values, _values(base, there)):
                shared.add(there.file)
                _move(tensor, there)
            else:
                own.write(bytes(-own.tell() % _ALIGNMENT))
                _move(tensor, _Place(OWN_DATA_FILE, own.tell(), place.length))
                own.write(values.tobytes())
    links = {name: folder / f".{name}.link" for name in shared}
    try:
        for name, link in links.items():
            os.link(base / name, link)
    except OSError as error:
        for path in (*links.values(), folder / OWN_DATA_FILE):
            path.unlink(missing_ok=True)
        report(f"{folder.name} keeps weights of its own: no hard link ({error.strerror})")
        return
    manifest = _manifest(base, folder, old, shared)
    (folder / GRAPH_FILE).write_bytes(graph.SerializeToString())
    embed_manifest(folder / GRAPH_FILE, manifest)
    for name in old:
        (folder / name).unlink()
    for name, link in links.items():
        os.replace(link, folder / name)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")


def _manifest(base: Path, folder: Path, old: set[str], shared: set[str]) -> Manifest:
    """The manifest of the folder with its new files."""
    theirs, ours = open_package(base).manifest, open_package(folder).manifest
    files = {name: record for name, record in ours.files.items() if name not in old}
    files |= {name: theirs.files[name] for name in shared}
    own = folder / OWN_DATA_FILE
    if own.stat().st_size:
        files[own.name] = FileRecord(own.stat().st_size, file_digest(own))
    else:
        own.unlink()
    return dataclasses.replace(ours, files=dict(sorted(files.items())))


def _outside(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _place(tensor: onnx.TensorProto) -> _Place:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return _Place(entries["location"], int(entries.get("offset", 0)), int(entries["length"]))


def _move(tensor: onnx.TensorProto, place: _Place) -> None:
    del tensor.external_data[:]
    for key, value in _entries(place):
        tensor.external_data.add(key=key, value=value)


def _entries(place: _Place) -> Iterator[tuple[str, str]]:
    yield "location", place.file
    yield "offset", str(place.offset)
    yield "length", str(place.length)


def _values(folder: Path, place: _Place) -> np.ndarray:
    return np.memmap(folder / place.file, np.uint8, "r", place.offset, (place.length,))
