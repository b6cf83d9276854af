"""A worker seen from outside: it is asked, watched, and replaced when it dies or hangs."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile.fuzz.worker import save_finding

ROOT = Path(__file__).parents[3]
PATHS = (ROOT / "tests", ROOT, ROOT / "tests" / "exporters")
WALL_SECONDS = 120.0
"""An example that a library never returns from is given up after this long."""
_START_SECONDS = 600.0
"""Within which a worker must have loaded what a format needs, on a machine with much else to do."""


class Worker:
    """One child process at a time.

    Args:
        seed: another one makes other examples.
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def run(self, name: str, folder: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
        """The outcomes of the examples ``first`` to ``first + count - 1`` of a format.

        Args:
            name: of the format.
            folder: where it works.
            first: number of the first example; with 0 the outcome of the good one is told first,
                under the number -1.
            count: how many.
        """
        at, end = first, first + count
        while at < end:
            for answer in self._ask(name, folder, at, end - at):
                yield answer
                at = max(at, answer["number"] + 1)

    def close(self) -> None:
        """End the child process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, name: str, folder: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        asked = {"format": name, "folder": str(folder), "seed": self._seed, "first": first,
                 "count": count}  # fmt: skip
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        at, patience = first, _START_SECONDS
        while True:
            line = self._line(process.stdout.fileno(), patience)
            patience = WALL_SECONDS
            if not line:
                what = self._end(line is None)
                kept = save_finding(folder, what, "") if (folder / "work").is_dir() else ""
                yield {"number": at, "kind": "finding", "what": what, "kept": str(kept),
                       "detail": ""}  # fmt: skip
                return
            answer = json.loads(line)
            if answer["number"] == -2:
                return
            at = max(at, answer["number"] + 1)
            yield answer

    def _line(self, descriptor: int, seconds: float) -> bytes | None:
        """The next line of an answer: empty where the child has ended, None where it hangs."""
        while b"\n" not in self._unread:
            if not select.select([descriptor], [], [], seconds)[0]:
                return None
            part = os.read(descriptor, 1 << 16)
            if not part:
                return b""
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            # Arenas of each thread would count as memory that an example takes.
            "MALLOC_ARENA_MAX": "2",
        }
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hostile.fuzz.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env=environment,
        )
        return self._process

    def _end(self, hangs: bool) -> str:
        """What the child died of."""
        process = self._process
        assert process is not None
        if hangs:
            process.kill()
        code = process.wait()
        process.communicate()
        self._process = None
        if hangs:
            return f"no answer for {WALL_SECONDS:g} s"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
