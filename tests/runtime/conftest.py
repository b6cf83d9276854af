"""Models for the tests of this folder: the toy model, and a tiny one for GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_fixtures import make_toy, other_toy, toy, toy_dir

__all__ = ["make_toy", "other_toy", "toy", "toy_dir"]


@pytest.fixture(scope="session")
def tiny_float16_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny exported model with float16 activations; copy it before changing anything."""
    from tiny import write_tiny_checkpoint

    from allmem_exporters.onnx.export import export

    folder = tmp_path_factory.mktemp("float16")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    export(checkpoint, folder / "model", activations="float16", check=False)
    return folder / "model"
