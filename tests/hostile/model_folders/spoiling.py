"""Spoils a model folder and sees it refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import stand_in

from allmem_runtime import ModelFileError, load, spec

Data = dict[str, Any]


def refused(folder: Path) -> ModelFileError:
    """Opening fails with an error that names a file of the folder and advises something."""
    with pytest.raises(ModelFileError) as caught:
        load(folder, device="cpu", operators="portable")
    assert str(folder) in caught.value.message
    assert caught.value.hint
    return caught.value


def rewrite(folder: Path, text: str) -> None:
    """Put another manifest into the graph and drop the readable copy."""
    (folder / spec.MANIFEST_FILE).unlink(missing_ok=True)
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    stand_in.set_manifest(model, text)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
