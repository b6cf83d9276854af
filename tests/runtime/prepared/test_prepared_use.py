"""Prepared weights are mapped, and say to the last bit what the exported ones say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from native_library import needs_library
from runtime.prepared.opening import IDS, is_right, logits, opened

from allmem_ops.library import check_library
from allmem_runtime.engine import preparing
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.info import model_info, model_lines


@pytest.mark.parametrize("operators", ["portable", pytest.param("native", marks=needs_library)])
def test_prepared_weights_are_used_and_say_the_same_to_the_last_bit(
    package: Package, operators: str
) -> None:
    path = check_library().path if operators == "native" else None

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
