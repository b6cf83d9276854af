"""Prepared weights are mapped where they are right, and are otherwise as good as not there."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from allmem_ops.library import LibraryError, LibraryInfo, check_library
from allmem_runtime import Model, ModelFileError, StorageError, load
from allmem_runtime.engine import opening, prepared, preparing
from allmem_runtime.files import seal
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.files.user_cache import VARIABLE
from allmem_runtime.info import model_info, model_lines
from allmem_runtime.machine import Machine

IDS = [(7 * i + 3) % 300 for i in range(40)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture
def package(tiny_model_dir: Path, tmp_path: Path) -> Package:
    """A copy of a model that may be written to."""
    return open_package(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def opened(package: Package, **options: Any) -> Model:
    options.setdefault("operators", "portable")
    return load(package.folder, device="cpu", threads=1, **options)


def logits(model: Model) -> np.ndarray[Any, Any]:
    rows = model.session(undo=False).feed(IDS, "all")
    assert rows is not None
    return rows


def is_right(package: Package, model: Model) -> bool:
    """Whether a model says what the exported weights say, to the last bit."""
    return np.array_equal(logits(model), logits(opened(package, prepared=False)))


def library() -> LibraryInfo | None:
    try:
        return check_library()
    except LibraryError:
        return None


# In use ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("operators", ["portable", "native"])
def test_prepared_weights_are_used_and_say_the_same_to_the_last_bit(
    package: Package, operators: str
) -> None:
    info = library()
    if operators == "native" and info is None:
        pytest.skip("no operator library")
    path = info.path if info and operators == "native" else None

    folder = preparing.prepare(package, path)

    model = opened(package, operators=operators)
    assert model.engine.prepared == folder
    assert model.engine.notices == []
    plain = opened(package, operators=operators, prepared=False)
    assert plain.engine.prepared is None
    np.testing.assert_array_equal(logits(model), logits(plain))


def test_what_is_saved_are_weights_laid_out_for_the_cpu(package: Package) -> None:
    folder = preparing.prepare(package, None)

    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    keys = {e.key for tensor in graph.initializer for e in tensor.external_data}
    assert any(key.startswith("prepacked") for key in keys)


def test_without_prepared_weights_nothing_is_said(package: Package) -> None:
    model = opened(package)
    assert model.engine.prepared is None
    assert model.engine.notices == []


def test_sessions_move_between_prepared_and_exported_weights(
    package: Package, tmp_path: Path
) -> None:
    session = opened(package).session()
    session.feed(IDS)
    session.save(tmp_path / "s.allmem")
    preparing.prepare(package, None)

    model = opened(package)
    assert model.engine.prepared is not None
    again = model.open(tmp_path / "s.allmem")
    np.testing.assert_array_equal(again.feed([5], "last"), session.feed([5], "last"))


def test_a_moved_model_takes_its_prepared_weights_along(package: Package, tmp_path: Path) -> None:
    preparing.prepare(package, None)
    there = open_package(shutil.copytree(package.folder, tmp_path / "elsewhere"))

    model = opened(there)

    assert model.engine.prepared is not None
    assert model.engine.prepared.is_relative_to(there.folder)
    assert is_right(there, model)


def test_info_says_whether_they_are_in_use(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    from allmem_ops.library import LIBRARY_VARIABLE

    monkeypatch.setenv(LIBRARY_VARIABLE, str(package.folder / "none.so"))
    before = model_info(package.folder)["prepared"]
    folder = preparing.prepare(package, None)
    after = model_info(package.folder)

    assert before == {"used": False, "folder": None, "notice": ""}
    assert after["prepared"] == {"used": True, "folder": str(folder), "notice": ""}
    assert f"prepared   {folder}" in list(model_lines(after))


# Made for something else ----------------------------------------------------------------------


def another_cpu(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    other = Machine("Other", "x86_64", 8, "0" * 64)
    monkeypatch.setattr(prepared, "machine", lambda: other)


def another_runtime(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.99.0")


def another_export(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    model = onnx.load(package.graph, load_external_data=False)
    model.doc_string = "another export in the same place"
    package.graph.write_bytes(model.SerializeToString())


def another_format(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    monkeypatch.setattr(prepared, "FORMAT", prepared.FORMAT + 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (another_cpu, "for another CPU"),
        (another_runtime, "by another version of ONNX Runtime"),
        (another_export, "of another export"),
        (another_format, "by another version of this program"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_weights_made_for_something_else_are_not_used_and_can_be_made_anew(
    package: Package,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch, Package], None],
    reason: str,
) -> None:
    old = preparing.prepare(package, None)
    change(monkeypatch, package)
    package = open_package(package.folder)

    model = opened(package)
    assert model.engine.prepared is None
    assert f"they were made {reason}" in model.engine.notice
    assert "`allmem prepare" in model.engine.notice
    assert is_right(package, model)

    new = preparing.prepare(package, None)
    model = opened(package)
    assert new != old
    assert model.engine.prepared == new
    assert model.engine.notices == []
    assert is_right(package, model)


@pytest.mark.skipif(library() is None, reason="no operator library")
def test_weights_for_other_operators_are_not_used(package: Package) -> None:
    preparing.prepare(package, None)
    model = opened(package, operators="native")
    assert model.engine.prepared is None
    assert "with other operators" in model.engine.notice


def test_another_build_of_the_operators_is_another_one(package: Package, tmp_path: Path) -> None:
    first, second = tmp_path / "a.so", tmp_path / "b.so"
    first.write_bytes(b"one build")
    second.write_bytes(b"another!!")
    names = {prepared.folder_name(prepared.facts(package, path)) for path in (first, second, None)}
    assert len(names) == 3


def test_outdated_weights_are_deleted_and_those_of_other_cpus_kept(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = preparing.prepare(package, None)
    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.__version__", "1.99.0")
        second = preparing.prepare(package, None)
    assert not first.exists() and second.exists()

    another = Machine("Other", "x86_64", 8, "0" * 64)
    for module in (prepared, preparing):
        monkeypatch.setattr(module, "machine", lambda: another)
    third = preparing.prepare(package, None)
    assert second.exists() and third.exists()


# Damaged --------------------------------------------------------------------------------------


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


# Made elsewhere -------------------------------------------------------------------------------


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
    assert seal.seal({"a": 1}) is None
    first = seal.seal({"a": 1}, make_key=True)
    assert first == seal.seal({"a": 1}, make_key=True) == seal.seal({"a": 1})
    assert seal.is_sealed({"a": 1}, first)
    assert not seal.is_sealed({"a": 2}, first)
    assert not any(seal.is_sealed({"a": 1}, wrong) for wrong in (None, 1, "", "é", first[:-1]))
    assert os.name != "posix" or (cache / "key").stat().st_mode & 0o777 == 0o600


def test_model_graph_with_weights_laid_out_for_a_cpu_is_refused(package: Package) -> None:
    """Blobs that came with a model would be used as they are."""
    folder = preparing.prepare(package, None)
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(folder / name, package.folder / name)
    with pytest.raises(ModelFileError, match="laid out for one CPU"):
        open_package(package.folder)


# Writing --------------------------------------------------------------------------------------


def test_prepared_twice_is_prepared_once(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = preparing.prepare(package, None)
    monkeypatch.setattr(preparing, "save_prepared", lambda *_: pytest.fail("did it again"))
    assert preparing.prepare(package, None) == folder


def test_asked_to_it_is_done_again(package: Package) -> None:
    folder = preparing.prepare(package, None)
    before = (folder / "model.onnx").stat().st_ino
    assert preparing.prepare(package, None, again=True) == folder
    assert (folder / "model.onnx").stat().st_ino != before
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make folders unwritable, whoever runs the tests."""
    refused: list[Path] = []
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **options: Any) -> None:
        if any(self.is_relative_to(folder) for folder in refused):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return refused.append


def test_beside_a_read_only_model_the_cache_folder_is_used(
    package: Package, cache: Path, unwritable: Callable[[Path], None]
) -> None:
    unwritable(package.folder)
    folder = preparing.prepare(package, None)

    assert folder.is_relative_to(cache)
    model = opened(package)
    assert model.engine.prepared == folder
    assert is_right(package, model)


def test_where_nothing_can_be_written_the_error_names_both_places(
    package: Package, cache: Path, unwritable: Callable[[Path], None]
) -> None:
    unwritable(package.folder)
    unwritable(cache)
    with pytest.raises(StorageError) as caught:
        preparing.prepare(package, None)
    assert str(package.folder) in caught.value.message and str(cache) in caught.value.message
    assert VARIABLE in caught.value.hint


def test_too_little_room_is_said_before_anything_is_written(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(package.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(StorageError, match="1 MiB are free"):
        preparing.prepare(package, None)
    assert prepared.records(package.folder / "prepared") == []


def test_a_disk_that_fills_up_meanwhile_is_said_to_be_full(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
        raise ModelFileError("Failed to write external initializers.")

    usage = shutil.disk_usage(package.folder)
    monkeypatch.setattr(preparing, "save_prepared", fail)
    with pytest.raises(StorageError, match="No space left"):
        preparing.prepare(package, None)
    assert [path.name for path in (package.folder / "prepared").iterdir()] == [".lock"]


def test_damaged_weights_make_room_for_new_ones(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = preparing.prepare(package, None)
    os.truncate(folder / "model.onnx.data", 10)
    usage = shutil.disk_usage(package.folder)

    def free(path: Path) -> Any:
        return usage._replace(free=0 if folder.exists() else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", free)
    assert preparing.prepare(package, None) == folder


def test_a_failure_in_the_middle_leaves_what_was_there(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = preparing.prepare(package, None)
    names = {path.name for path in folder.parent.iterdir()}

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preparing, "_write_record", fail)
    with pytest.raises(StorageError, match="No space left") as caught:
        preparing.prepare(package, None, again=True)
    assert "Make room" in caught.value.hint
    assert {path.name for path in folder.parent.iterdir()} == names
    assert opened(package).engine.prepared == folder


def test_what_a_killed_process_left_is_swept_up(package: Package) -> None:
    left = package.folder / "prepared" / ".making-killed"
    left.mkdir(parents=True)
    (left / "model.onnx.data").write_bytes(b"half")
    assert opened(package).engine.prepared is None

    preparing.prepare(package, None)
    assert not left.exists()


def hold(path: Path, held: Any) -> None:
    """In another process: take the lock and keep it."""
    from allmem_runtime.files.locking import only_one

    with only_one(path, "testing"):
        held.set()
        time.sleep(60)


def test_two_processes_do_not_prepare_at_once(package: Package) -> None:
    base = package.folder / "prepared"
    base.mkdir()
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=hold, args=(base / ".lock", held), daemon=True)
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(StorageError, match="Another process is preparing this model"):
            preparing.prepare(package, None)
    finally:
        other.kill()
        other.join()
    # A lock dies with its process.
    assert preparing.prepare(package, None).is_dir()


def test_removing_leaves_the_model_as_it_was(package: Package, cache: Path) -> None:
    before = sorted(package.folder.iterdir())
    folder = preparing.prepare(package, None)

    (folder / "prepared.json").write_text("damaged")

    assert preparing.remove(package) == [folder]
    assert sorted(package.folder.iterdir()) == before
    assert preparing.remove(package) == []
    assert opened(package).engine.notices == []
