"""The toy model for the tests of this folder."""

from toy_fixtures import make_toy, other_toy, toy, toy_dir

__all__ = ["make_toy", "other_toy", "toy", "toy_dir"]
