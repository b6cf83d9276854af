"""Fixtures of the engine's tests: a toy model of standard operators, made in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import stand_in

from allmem_runtime import Model, load


@pytest.fixture(scope="session")
def toy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy model's folder; copy it before changing anything."""
    return stand_in.write(tmp_path_factory.mktemp("models") / "stand-in")


@pytest.fixture(scope="session")
def toy(toy_dir: Path) -> Model:
    return load(toy_dir, device="cpu", operators="portable", threads=1)


@pytest.fixture(scope="session")
def other_toy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same layout with other weights."""
    folder = stand_in.write(tmp_path_factory.mktemp("models") / "other", salt=5, name="other")
    return load(folder, device="cpu", operators="portable", threads=1)


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Path]:
    """Write a toy model into a fresh folder."""

    def make(name: str = "model", **options: object) -> Path:
        return stand_in.write(tmp_path / name, **options)  # type: ignore[arg-type]

    return make
