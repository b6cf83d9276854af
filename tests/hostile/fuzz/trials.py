"""Tries tokenizers and templates in forks of one small process that has loaded what they need.

Starting an interpreter for each takes ten times as long as most trials. What runs in a fork, and
under which limits, is the same.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from allmem_runtime.text import templates, trial_child
from allmem_runtime.text.limits import Limits, allow


class Trials:
    """That process seen from outside; it is started with the first trial."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def told(self, task: bytes, seconds: float) -> tuple[bytes, int]:
        """In place of ``trial_process._told``."""
        process = self._process
        if process is None:
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                "RAYON_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "RUST_BACKTRACE": "0",
            }
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "hostile.fuzz.trials"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"%g %d\n" % (seconds, len(task)) + task)
        process.stdin.flush()
        code, length = map(int, process.stdout.readline().split())
        return process.stdout.read(length), code


def serve() -> None:
    """Do tasks until standard input ends."""
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := asked.readline():
        seconds, length = line.split()
        said, code = _fork(asked.read(int(length)), float(seconds))
        answers.write(b"%d %d\n" % (code, len(said)) + said)
        answers.flush()


def _fork(task: bytes, seconds: float) -> tuple[bytes, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        code = 1
        try:
            _try(json.loads(task))
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    end, said = time.monotonic() + seconds, bytearray()
    while True:
        if not select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
            os.kill(child, signal.SIGKILL)
            end += 60  # until it is gone
        part = os.read(reader, 1 << 16)
        if not part:
            break
        said += part
    os.close(reader)
    return bytes(said), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _try(task: dict[str, Any]) -> None:
    """What ``trial_child.main`` does."""
    limits = Limits(**task["limits"])
    limits.apply()
    trial_child.do(task, trial_child._say, lambda: allow(limits.template_seconds))


if __name__ == "__main__":
    import tokenizers  # noqa: F401  # what a fork needs is loaded once

    from allmem_runtime.text import tokenizer  # noqa: F401

    templates.Template("{{ 1 }}")
    serve()
