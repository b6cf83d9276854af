"""The toy model for tests of answers with passages."""

from __future__ import annotations

from toy_fixtures import make_toy, toy, toy_dir

__all__ = ["make_toy", "toy", "toy_dir"]
