"""Fixtures of the benchmarks' tests."""

from toy_fixtures import make_toy, toy_dir

__all__ = ["make_toy", "toy_dir"]
