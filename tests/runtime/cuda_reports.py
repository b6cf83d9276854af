"""What a model does on the stand-in CUDA device, seen from outside: children and their reports."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "cuda_device"))

from cuda_stand_in import build, build_operators, environment, missing  # noqa: E402


@functools.cache
def device_folder() -> Path:
    """The device and our operators for it; a skip that says why if they cannot be built here."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="allmem-cuda-device-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build(folder)
    build_operators(folder)
    return folder


def run_child(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run Python on the device in a folder of its own.

    Args:
        arguments: what python is given.
        settings: variables of the device.
    """
    folders = [str(ROOT / "tests" / "cuda_device"), str(ROOT / "tests" / "runtime")]
    search = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", *map(str, arguments)],
            env={**environment(device_folder(), **settings), "PYTHONPATH": search},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )


def report(folder: Path, operators: str = "native", graphs: bool = True) -> dict[str, Any]:
    """What ``cuda_child.report`` says of a model; asked once."""
    return _report(folder, operators, graphs)


@functools.cache
def _report(folder: Path, operators: str, graphs: bool) -> dict[str, Any]:
    child = Path(__file__).with_name("cuda_child.py")
    done = run_child(child, folder, operators, "graphs" if graphs else "no graphs")
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
