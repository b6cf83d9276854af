"""A model that may be written to, and a cache folder of the test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from allmem_runtime.files.package import Package, open_package
from allmem_runtime.files.user_cache import VARIABLE


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
