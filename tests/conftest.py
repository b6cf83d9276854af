"""Fixtures shared by all tests: one tiny exported model, made once per run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Heed Ctrl-C, and let heed it what is started: in the background all would ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AllMem checkpoint; copy it before changing anything."""
    from tiny import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny exported model (window 24, sinks 4, chunk 16); copy it before changing anything."""
    from tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def other_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tiny model of the same shape, with other weights."""
    from tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("other") / "model", seed=1)


_NOT_RUN = {
    "gpu": "need a CUDA device",
    "long": "take minutes: make test-long",
}
_deselected: dict[str, int] = {}


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what the marker expression left out."""
    for item in items:
        for marker in _NOT_RUN:
            if item.get_closest_marker(marker):
                _deselected[marker] = _deselected.get(marker, 0) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run, and why; silence would pass for success."""
    for marker, count in sorted(_deselected.items()):
        terminalreporter.write_line(f"not run: {count} tests marked {marker} ({_NOT_RUN[marker]})")
    skipped: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped[reason] = skipped.get(reason, 0) + 1
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"not run: {count} skipped ({reason})")
