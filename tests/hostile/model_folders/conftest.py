"""A model folder to spoil."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def folder(make_toy: Callable[..., Path]) -> Path:
    return make_toy()
