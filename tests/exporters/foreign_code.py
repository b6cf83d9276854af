"""A process that runs the real commands on folders of strangers and tells what they reached for.

Packages by which transformers would load native code of the hub are there, but for their code: it
says that it was asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "pickle.", "urllib.",
           "http.", "os.system", "os.exec")  # fmt: skip
CHILD = """
import contextlib, io, json, os, sys
reached = os.open(os.environ["REACHED"], os.O_WRONLY | os.O_APPEND)
watched = tuple(os.environ["WATCHED"].split())
def watch(event, given):
    if event.startswith(watched):
        os.write(reached, f"{event} {given!r}"[:300].encode() + b"\\n")
sys.asked = lambda what: os.write(reached, f"asked for {what}\\n".encode())
from allmem_runtime.cli import main
def optimum(arguments):
    import argparse
    from allmem_exporters.optimum.arguments import add_arguments
    from allmem_exporters.optimum.command import main
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    main(parser.parse_args(arguments))
sys.addaudithook(watch)
for line in sys.stdin:
    verb, *arguments = json.loads(line)
    err, code = io.StringIO(), 0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        sys.argv = ["allmem", verb, *arguments]
        try:
            optimum(arguments) if verb == "optimum" else main()
        except SystemExit as end:
            code = end.code or 0
    os.write(answers, json.dumps([code, err.getvalue()]).encode() + b"\\n")
"""
KERNELS = """
import sys
def get_kernel(*given, **named):
    sys.asked(f"kernels for {given}")
    raise FileNotFoundError("no such kernel")
class _Anything:
    def __init__(self, *given, **named): pass
    def __call__(self, thing=None, *given, **named): return thing
    def __getattr__(self, name): return _Anything()
def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return type(name, (_Anything,), {}) if name[0].isupper() else (lambda *a, **k: lambda one: one)
"""
TIMM = """
import sys
def create_model(name, *given, **named):
    sys.asked(f"timm for {name}")
    raise FileNotFoundError("no such model")
def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return lambda *a, **k: None
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command: exit code, standard error, and what it reached for."""

    code: int
    err: str
    reached: str


def write_traps(folder: Path) -> None:
    """Packages that say when they are asked for code."""
    for name, version, code in (("kernels", "0.18.2", KERNELS), ("timm", "99.0", TIMM)):
        (folder / name / "layer").mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code)
        (folder / name / "layer" / "__init__.py").write_text("")
        (folder / name / "layer" / "mode.py").write_text("class Mode: INFERENCE = TRAINING = 0\n")
        described = folder / f"{name}-{version}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (described / "top_level.txt").write_text(f"{name}\n")
        (described / "RECORD").write_text(f"{name}/__init__.py,,\n")


class Watched:
    """The process; one command at a time."""

    def __init__(self, folder: Path) -> None:
        write_traps(folder)
        self._reached = folder / "reached"
        self._reached.touch()
        ours, theirs = os.pipe()
        root = Path(__file__).parents[2]
        path = [folder, root, root / "custom_ops", root / "exporters"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"answers = {theirs}\n{CHILD}"],
            stdin=subprocess.PIPE,
            stderr=(folder / "stderr").open("wb"),
            pass_fds=[theirs],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)),
                 "REACHED": str(self._reached), "WATCHED": " ".join(WATCHED),
                 "HF_HUB_OFFLINE": ""},
        )  # fmt: skip
        os.close(theirs)
        self._answers = os.fdopen(ours, encoding="utf-8")
        self._stderr = folder / "stderr"

    def run(self, *command: object) -> Done:
        """Run a command: a verb of `allmem`, or `optimum` for optimum-cli's."""
        assert self._process.stdin is not None
        os.truncate(self._reached, 0)
        self._process.stdin.write(json.dumps([str(part) for part in command]).encode() + b"\n")
        self._process.stdin.flush()
        line = self._answers.readline()
        assert line, self._stderr.read_text()[-3000:]
        code, err = json.loads(line)
        return Done(code, err, self._reached.read_text())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
