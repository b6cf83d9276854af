"""Opens a model for the tests of this folder, and tells whether it says what it should."""

from __future__ import annotations

from typing import Any

import numpy as np

from allmem_runtime import Model, load
from allmem_runtime.files.package import Package

IDS = [(7 * i + 3) % 300 for i in range(40)]


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
