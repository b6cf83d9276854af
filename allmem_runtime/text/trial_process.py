"""Starts the process in which what strangers wrote is run, and hears what it says."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from allmem_runtime.child_process import command, environment, has_interpreter
from allmem_runtime.errors import ModelFileError
from allmem_runtime.quantities import format_bytes
from allmem_runtime.spec import CHAT_TEMPLATE_FILE, TOKENIZER_FILE
from allmem_runtime.text.limits import Limits

_CHILD = "allmem_runtime.text.trial_child"
_REMEDY = "Open only models that you trust; get this one from its source, or do without it."


class Task(Protocol):
    """What is to be done; see ``trial.Candidate`` and ``conversation.Conversation``."""

    @property
    def origin(self) -> Path:
        """Folder the files lie in."""

    def as_data(self) -> dict[str, Any]:
        """All else as JSON knows it."""


def run(task: Task) -> dict[str, Any]:
    """What is found out.

    Returns:
        Of a candidate ``chat``, and the ``dates`` that the template was told; of a conversation its
        ``pieces``.

    Raises:
        ModelFileError: a file fails, or takes too much; the text names it.
    """
    data = task.as_data()
    if not has_interpreter():
        return _here(data, task.origin)
    limits = _limits(data)
    data["limits"] = asdict(limits)
    said, code = _told(json.dumps(data).encode(), limits.wall_seconds)
    lines = said.splitlines()
    last = json.loads(lines[-1]) if lines else {"trying": TOKENIZER_FILE}
    return _outcome(last, code, limits, task.origin)


def _told(task: bytes, seconds: float) -> tuple[bytes, int]:
    return told(_CHILD, task, seconds)


def told(module: str, task: bytes, seconds: float) -> tuple[bytes, int]:
    """What a module says, run in a process of its own, and its exit code.

    Args:
        module: to run.
        task: what it is given on standard input.
        seconds: after which it is ended.
    """
    process = subprocess.Popen(
        command(module),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    with process:
        try:
            said, _ = process.communicate(task, seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    return said, process.returncode


def _here(data: dict[str, Any], origin: Path) -> dict[str, Any]:
    """Try in this process, where a program in one piece holds the interpreter."""
    from allmem_runtime.text.trial_child import do

    said: list[dict[str, Any]] = []
    do(data, said.append)
    return _outcome(said[-1], 0, _limits(data), origin)


def _limits(data: dict[str, Any]) -> Limits:
    return Limits.of(len(data.get("tokenizer", "")))


def _outcome(last: dict[str, Any], code: int, limits: Limits, origin: Path) -> dict[str, Any]:
    """What was said last; what is about to be tried is named before it is."""
    name = last.get("trying", "")
    if "error" in last:
        message, hint = last["error"]
        raise ModelFileError(message.replace("\0", str(origin / name)), hint)
    if "trying" not in last:
        return last
    if code == -getattr(signal, "SIGXCPU", 0):
        template = name == CHAT_TEMPLATE_FILE
        seconds = limits.template_seconds if template else limits.cpu_seconds
        reason = f"trying it takes more than {seconds} seconds"
    else:
        reason = f"trying it crashes, or takes more than {format_bytes(limits.memory)} of memory"
    raise ModelFileError(f"{origin / name} cannot be used: {reason}.", _REMEDY)
