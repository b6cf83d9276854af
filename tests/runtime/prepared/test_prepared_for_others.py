"""Weights prepared for another machine, export or program are as good as not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from native_library import needs_library
from runtime.prepared.opening import is_right, opened

from allmem_runtime.engine import prepared, preparing
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.machine import Machine


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


@needs_library
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
