"""Running the commands: as processes where it matters, and what both ways give back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from allmem_runtime import cli
from allmem_runtime.files import snapshot

TEXT = "The river went round the old mill; nobody had seen the keys since May. 東京 👩‍🚀\n"
SHORT = ("--device", "cpu", "--threads", "1", "--operators", "portable", "--max-tokens", "2")
"""Options of `allmem-run` for a short answer in the reference's arithmetic."""

MAINS = {"allmem": "main", "allmem-run": "run_main"}


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


Command = Callable[..., Result]


def process(name: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process, its standard streams pipes unless given, after a ``prefix``."""
    prefix = options.pop("prefix", [])
    program = f"from allmem_runtime.cli import {MAINS[name]} as main; main()"
    root = Path(cli.__file__).parents[2]
    path = [str(root), str(root / "custom_ops"), str(root / "exporters")]
    environment = {**os.environ, **options.pop("env", {})}
    environment["PYTHONPATH"] = os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])
    for stream in ("stdin", "stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    # A buffer would hold lines that ``communicate`` then does not see.
    options.setdefault("bufsize", 0)
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program, *(str(a) for a in arguments)],
        env=environment,
        **options,
    )


def finished(running: subprocess.Popen[bytes], stdin: bytes | None = None) -> Result:
    """Wait for a process; a minute is far more than any of these takes."""
    try:
        out, err = running.communicate(stdin, timeout=60)
    except subprocess.TimeoutExpired:
        running.kill()
        out, err = running.communicate()
        pytest.fail(f"did not end: {out.decode()[-500:]} {err.decode()[-500:]}")
    return Result(running.returncode, (out or b"").decode(), (err or b"").decode())


def assert_same_state(one: Path, other: Path) -> None:
    """Two session files stand at the same place and hold the same state to the last bit."""
    headers = [snapshot.read_header(path) for path in (one, other)]
    places = [header.place(1 << 20) for header in headers]
    stand = [(p.position, p.source.offset, p.source.finished, len(p.pending)) for p in places]
    assert stand[0] == stand[1]
    first, second = (json.loads(header.metadata["tensors"]) for header in headers)
    assert [name for name in first if first[name] != second[name]] == []


def events(running: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert running.stdout is not None
    for line in running.stdout:
        yield json.loads(line)


def until(running: subprocess.Popen[bytes], kind: str) -> dict[str, Any]:
    """Read events up to the next one of this kind."""
    for event in events(running):
        if event["event"] == kind:
            return event
    assert running.stderr is not None
    pytest.fail(f"ended without {kind}: {running.stderr.read().decode()[-1000:]}")
