"""Fixtures shared by all tests: tiny exported models, made once per run, however many workers.

Also what pytest-xdist needs: one thread a worker, and a summary that counts in the workers.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from once import SharedFolder, made_once

_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if _WORKER:
    # Workers share the cores; the libraries read this when they are loaded, which is later.
    for _library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
# What a run finds out of tokenizers and templates is for this run, and no user's cache is touched.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
_CACHE = Path(tempfile.gettempdir()) / f"allmem-tests-{os.getuid()}-{_RUN}"
os.environ["ALLMEM_CACHE"] = str(_CACHE)


def pytest_configure() -> None:
    """Heed Ctrl-C, and let heed it what is started: in the background all would ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """Make a folder by its name once in a run: the first worker that needs it makes it for all."""
    base = tmp_path_factory.getbasetemp()  # a worker's own lies in that of the run
    root = (base.parent if _WORKER else base) / "shared"
    return lambda name, make: made_once(root / name, make)


@pytest.fixture(scope="session")
def tiny_checkpoint_dir(shared_folder: SharedFolder) -> Path:
    """A tiny AllMem checkpoint; copy it before changing anything."""
    from tiny import write_tiny_checkpoint

    return shared_folder("tiny-checkpoint", write_tiny_checkpoint)


@pytest.fixture(scope="session")
def tiny_model_dir(shared_folder: SharedFolder) -> Path:
    """A tiny exported model (window 24, sinks 4, chunk 16); copy it before changing anything."""
    from tiny import write_tiny_model

    return shared_folder("tiny", lambda folder: write_tiny_model(folder / "model")) / "model"


@pytest.fixture(scope="session")
def other_model_dir(shared_folder: SharedFolder) -> Path:
    """Another tiny model of the same shape, with other weights."""
    from tiny import write_tiny_model

    made = shared_folder("other", lambda folder: write_tiny_model(folder / "model", seed=1))
    return made / "model"


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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells the process that prints the summary what it was not given to run."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = _deselected
    else:
        shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Every worker collects all tests, so one worker's counts are those of the run."""
    _deselected.update(getattr(node, "workeroutput", {}).get("deselected", {}))


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
