"""What a start of a model takes: from the start of a process to its first token, and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import DeviceError

How = Literal["exported", "prepared"]
_CHILD = "allmem_runtime.bench.start_child"
_MOST_SECONDS = 900


@dataclass(slots=True)
class Starts:
    """Several starts of a model in one way.

    Attributes:
        how: with the weights as exported, or prepared ones.
        seconds: from starting the process to its first token, ascending.
        processor: processor time of all threads in that time, ascending; other programs hardly
            change it.
        parts: seconds of imports (the interpreter's own start included), opening and first step, of
            the fastest.
        resident: bytes in main memory after the first token, the state included.
        private: of these, what no other process could share; None where it is not known.
        anonymous: of these, what no file backs; None where it is not known.
        state: bytes of the session's state.
        folder: of the prepared weights that were used; empty if none were.
        notices: what opening had to say.
        logits: of a few tokens after the first.
    """

    how: How
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    resident: int = 0
    private: int | None = None
    anonymous: int | None = None
    state: int = 0
    folder: str = ""
    notices: list[str] = field(default_factory=list)
    logits: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def median(self) -> float:
        """The middle one of ``seconds``."""
        return self.seconds[len(self.seconds) // 2]

    @property
    def own(self) -> int:
        """Memory that is this process's alone and that no file backs; resident if unknown."""
        return self.resident if self.anonymous is None else self.anonymous

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "seconds_to_first_token": [round(value, 4) for value in self.seconds],
            "processor_seconds": [round(value, 4) for value in self.processor],
            "parts": {name: round(value, 4) for name, value in self.parts.items()},
            "resident_bytes": self.resident,
            "private_bytes": self.private,
            "anonymous_bytes": self.anonymous,
            "state_bytes": self.state,
        }


def measure_starts(
    model: Path, options: EngineOptions, ways: tuple[How, ...], repeats: int = 3
) -> dict[How, Starts]:
    """Start a model several times in each way, alternately.

    Args:
        model: folder or graph.
        options: as for ``load``.
        ways: what to compare.
        repeats: starts of each.

    Raises:
        DeviceError: a start failed; the text says how.
    """
    found: dict[How, Starts] = {how: Starts(how) for how in ways}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "logits.npy"
        for turn in range(repeats):
            for how in ways if turn % 2 else ways[::-1]:
                _start(found[how], model, options, target)
    for starts in found.values():
        starts.seconds.sort()
        starts.processor.sort()
    return found


def _start(starts: Starts, model: Path, options: EngineOptions, target: Path) -> None:
    command = [sys.executable, "-m", _CHILD, os.fspath(model), options.operators]
    command.append(str(options.threads or 0))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            [*command, starts.how, os.fspath(target)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=environment,
        ) as child,
    ):
        assert child.stdout is not None
        first = child.stdout.readline()
        seconds = time.perf_counter() - began
        # Not `communicate`: it would pass by what `readline` has read ahead.
        rest = child.stdout.read()
        code = child.wait(timeout=_MOST_SECONDS)
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if code:
        last = said[-1:] or [f"exit code {code}"]
        raise DeviceError(
            f"A start of {model} with {starts.how} weights failed: {last[0][:400]}",
            "`allmem doctor` with the model's name says more.",
        )
    told, memory = json.loads(first), json.loads(rest)
    if not starts.seconds or seconds < min(starts.seconds):
        starts.parts = {"opening": told["opening"], "first step": told["first_step"]}
        starts.parts = {"imports": seconds - sum(starts.parts.values()), **starts.parts}
    starts.seconds.append(seconds)
    starts.processor.append(told["processor"])
    starts.folder, starts.notices = told["prepared"], told["notices"]
    starts.resident, starts.state = memory["resident"], memory["state"]
    starts.private, starts.anonymous = memory["private"], memory["anonymous"]
    starts.logits = np.load(target, allow_pickle=False)
