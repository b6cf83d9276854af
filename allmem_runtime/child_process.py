"""How another Python process of ours is started: the same packages, few threads, no panics told."""

from __future__ import annotations

import os
import sys


def has_interpreter() -> bool:
    """Whether another process can be started; a program in one piece cannot."""
    return bool(sys.executable) and not hasattr(sys, "frozen")


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module; a file in the working directory is no module of ours."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """What such a process is told of its surroundings."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "RAYON_NUM_THREADS": "1",  # each thread would reserve memory of its own
        "TOKENIZERS_PARALLELISM": "false",
        "RUST_BACKTRACE": "0",
    }
