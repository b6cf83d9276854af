"""Prepared weights that were damaged, or not made here, are never used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime.prepared.opening import is_right, opened

from allmem_runtime import ModelFileError, StorageError
from allmem_runtime.engine import opening, prepared, preparing
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.files.record_signature import is_signed, sign
from allmem_runtime.files.temporary import temporary_name
from allmem_runtime.files.user_cache import VARIABLE


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0x10
    path.write_bytes(bytes(data))


def flip_unseen(path: Path, at: float) -> None:
    """As ``flip``, with the time of change as it was."""
    status = path.stat()
    flip(path, at)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weight": lambda folder: flip(folder / "model.onnx.data", 0.5),
    "last weight": lambda folder: flip(folder / "model.onnx.data", 0.999),
    "weight, times kept": lambda folder: flip_unseen(folder / "model.onnx.data", 0.3),
    "graph": lambda folder: flip(folder / "model.onnx", 0.5),
    "cut off": lambda folder: os.truncate(folder / "model.onnx.data", 5000),
    "grown": lambda folder: grow(folder / "model.onnx.data"),
    "weights gone": lambda folder: (folder / "model.onnx.data").unlink(),
    "graph gone": lambda folder: (folder / "model.onnx").unlink(),
    "graph a folder": lambda folder: (
        (folder / "model.onnx").unlink(),
        (folder / "model.onnx").mkdir(),
    ),
    "record gone": lambda folder: (folder / "prepared.json").unlink(),
    "record cut": lambda folder: os.truncate(folder / "prepared.json", 100),
    "record no object": lambda folder: (folder / "prepared.json").write_text("[1]"),
    "record a pipe": lambda folder: (
        (folder / "prepared.json").unlink(),
        os.mkfifo(folder / "prepared.json"),  # whoever reads it waits for a writer
    ),
    "record deep": lambda folder: (folder / "prepared.json").write_text("[" * 60_000),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_weights_are_never_used(package: Package, damage: str) -> None:
    folder = preparing.prepare(package, None)
    DAMAGES[damage](folder)

    model = opened(package)
    assert model.engine.prepared is None
    assert str(folder) in model.engine.notice
    assert is_right(package, model)

    assert preparing.prepare(package, None) == folder
    model = opened(package)
    assert model.engine.prepared == folder
    assert is_right(package, model)


def test_a_link_in_place_of_the_weights_is_not_followed(package: Package, tmp_path: Path) -> None:
    folder = preparing.prepare(package, None)
    shutil.move(folder / "model.onnx.data", tmp_path / "elsewhere")
    (folder / "model.onnx.data").symlink_to(tmp_path / "elsewhere")

    assert opened(package).engine.prepared is None


def test_what_onnx_runtime_refuses_is_not_used(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing.prepare(package, None)
    real = opening._open

    def refuse(wanted: Any, path: Any, graphs: bool, options: Any, graph: Path) -> Any:
        if graph != package.graph:
            raise ModelFileError(f"{graph} does not load.", "")
        return real(wanted, path, graphs, options, graph)

    monkeypatch.setattr(opening, "_open", refuse)
    model = opened(package)
    assert model.engine.prepared is None
    assert "Opening without prepared weights" in model.engine.notice


def test_weights_that_came_with_the_model_are_not_believed(
    package: Package, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download could hold a folder made for this very CPU, and other weights in it."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "their cache"))
    folder = preparing.prepare(package, None)
    assert opened(package).engine.prepared == folder

    monkeypatch.setenv(VARIABLE, str(cache))
    model = opened(package)
    assert model.engine.prepared is None
    assert "was not made here" in model.engine.notice
    assert is_right(package, model)


@pytest.mark.parametrize("key", ["facts", "files", "graph", "name"])
def test_a_changed_record_is_not_believed(package: Package, key: str) -> None:
    folder = preparing.prepare(package, None)
    record = json.loads((folder / "prepared.json").read_text())
    record[key] = {**record[key], "more": 1} if isinstance(record[key], dict) else "other"
    (folder / "prepared.json").write_text(json.dumps(record))

    assert prepared.read_record(folder) is None
    assert opened(package).engine.prepared is None


def test_the_key_is_made_once_and_only_its_owner_may_read_it(cache: Path) -> None:
    assert sign({"a": 1}) is None
    first = sign({"a": 1}, make_key=True)
    assert first == sign({"a": 1}, make_key=True) == sign({"a": 1})
    assert is_signed({"a": 1}, first)
    assert not is_signed({"a": 2}, first)
    assert not any(is_signed({"a": 1}, wrong) for wrong in (None, 1, "", "é", first[:-1]))
    assert os.name != "posix" or (cache / "key").stat().st_mode & 0o777 == 0o600


def test_model_graph_with_weights_laid_out_for_a_cpu_is_refused(package: Package) -> None:
    """Blobs that came with a model would be used as they are; such a graph is fused, too."""
    folder = preparing.prepare(package, None)
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(folder / name, package.folder / name)
    with pytest.raises(ModelFileError, match="laid out for one CPU|which no export holds"):
        open_package(package.folder)


@pytest.fixture
def elsewhere(package: Package, tmp_path: Path) -> Path:
    """A folder of the user's with a name like ours, which the model's ``prepared`` is a link to."""
    folder = tmp_path / "elsewhere"
    left = temporary_name(folder / ("0" * 32))
    left.mkdir(parents=True)
    (left / "chapter.txt").write_text("years of work")
    (folder / ("0" * 32)).mkdir()
    (package.folder / "prepared").symlink_to(folder, target_is_directory=True)
    return folder


@pytest.mark.parametrize("work", ["prepare", "remove"])
def test_nothing_is_written_or_deleted_where_a_link_leads(
    package: Package, elsewhere: Path, work: str
) -> None:
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(ModelFileError, match="is a link to .*elsewhere"):
        preparing.prepare(package, None) if work == "prepare" else preparing.remove(package)
    assert sorted(elsewhere.rglob("*")) == before


def test_model_whose_prepared_weights_are_a_link_opens_without_them(
    package: Package, elsewhere: Path
) -> None:
    model = opened(package)
    assert model.engine.prepared is None and "is a link to" in model.engine.notice
    assert is_right(package, model)


def test_link_in_the_place_of_prepared_weights_is_replaced_not_followed(
    package: Package, tmp_path: Path
) -> None:
    made = preparing.prepare(package, None)
    moved = tmp_path / "moved"
    shutil.move(made, moved)
    made.symlink_to(moved, target_is_directory=True)
    before = {path.name: path.read_bytes() for path in moved.iterdir()}

    assert opened(package).engine.prepared is None
    assert preparing.prepare(package, None) == made and not made.is_symlink()
    assert {path.name: path.read_bytes() for path in moved.iterdir()} == before
    assert opened(package).engine.prepared == made


def test_link_in_the_place_of_the_lock_makes_no_file(package: Package, tmp_path: Path) -> None:
    (package.folder / "prepared").mkdir()
    (package.folder / "prepared" / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(StorageError, match="could not be written"):
        preparing.prepare(package, None)
    assert not (tmp_path / "made").exists()
