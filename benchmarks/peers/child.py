"""The parent's end of a worker: asks, waits no longer than it may, and says why it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from allmem_runtime.bench.process_memory import ProcessMemory, process_memory

ROOT = Path(__file__).parents[2]


class Gone(Exception):
    """The system cannot go on; the text says why."""


class Child:
    """A system in its own process.

    Args:
        python: the Python that has it.
        module: of ``benchmarks.peers.systems``.
        model: its file or folder.
        threads: CPU threads.
        context: tokens that must fit.
        deadline: when to give up, by ``time.monotonic``.

    Raises:
        Gone: it did not start.
    """

    def __init__(
        self, python: str, module: str, model: Path, threads: int, context: int, deadline: float
    ) -> None:
        self._deadline = deadline
        paths = [str(ROOT), str(ROOT / "custom_ops"), str(ROOT / "exporters")]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = os.pathsep.join(
            [*paths, *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        arguments = [module, str(model), str(threads), str(context)]
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            cwd=ROOT,
        )
        try:
            self.version: str = self._answer()["version"]
        except Gone:
            self.close()
            raise

    def ask(self, **request: Any) -> float:
        """Seconds that a request took.

        Raises:
            Gone: there was no answer, or no time.
        """
        return float(self.tell(**request)["seconds"])

    def tell(self, **request: Any) -> dict[str, Any]:
        """All that the system answers to a request.

        Raises:
            Gone: there was no answer, or no time.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Gone(self._last_words()) from None
        return self._answer()

    def may_take_until(self, deadline: float) -> None:
        """Wait for answers until then, by ``time.monotonic``."""
        self._deadline = deadline

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
            raise Gone("no time was left")
        line = self._process.stdout.readline()
        if not line:
            raise Gone(self._last_words())
        values: dict[str, Any] = json.loads(line)
        if "error" in values:
            raise Gone(values["error"])
        return values

    def _last_words(self) -> str:
        self._process.wait(timeout=10)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"its process ended with {self._process.returncode}"

    def memory(self) -> ProcessMemory:
        """What its process takes now."""
        return process_memory(self._process.pid)

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
