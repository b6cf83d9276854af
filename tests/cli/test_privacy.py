"""Nothing phones home: no command opens a socket or writes a file that nobody asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import finished, process

SHORT = ("--prompt", "hi", "--max-tokens", 2, "--operators", "portable")
VERBS = {
    "run": ("allmem-run", "{model}", "{text}", *SHORT),
    "doctor": ("allmem", "doctor", "{model}"),
    "info": ("allmem", "info", "{model}"),
    "eval": ("allmem", "eval", "perplexity", "a={model}", "{text}", "--length", "64"),
    "convert": ("allmem", "convert", "{source}", "{out}"),
    "export": ("allmem", "export", "{checkpoint}", "{out}", "--check-tokens", "40"),
}


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained decoder in transformers' layout."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "exporters"))
    from checkpoints import write_folder

    folder = tmp_path_factory.mktemp("source")
    write_folder(folder)
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_command_opens_no_socket_and_writes_nothing_beside_what_was_asked(
    verb: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    source: Path,
    tiny_model_dir: Path,
    tiny_checkpoint_dir: Path,
) -> None:
    home, work, temporary = (tmp_path / name for name in ("home", "work", "temporary"))
    for folder in (home, work, temporary):
        folder.mkdir()
    text = tmp_path / "text.txt"
    text.write_text("The river went round the old mill. " * 30)
    places = {
        "model": tiny_model_dir, "text": text, "source": source, "out": work / "out",
        "checkpoint": tiny_checkpoint_dir,
    }  # fmt: skip
    name, *arguments = (str(part).format(**places) for part in VERBS[verb])
    environment = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(tmp_path_factory.getbasetemp() / "bytecode"),
    }
    for variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"):
        environment[variable] = ""
    trace = tmp_path / "trace"
    running = process(name, *arguments, env=environment, cwd=work, prefix=_tracer(trace))
    done = finished(running)

    assert done.code == 0, done.err
    assert [str(p) for folder in (home, temporary) for p in folder.rglob("*")] == []
    assert sorted(path.name for path in work.iterdir()) in ([], ["out"])
    if trace.exists():
        calls = trace.read_text().splitlines()
        assert any("openat(" in call for call in calls), "the trace is of this command"
        assert [call for call in calls if re.search(r"\b(socket|connect|sendto)\(", call)] == []


def _tracer(trace: Path) -> list[str]:
    """What to start a command with, so that its sockets show; nothing where there is no strace."""
    tracer = shutil.which("strace")
    watched = "trace=socket,connect,sendto,openat"
    # With --seccomp-bpf (strace 5.3) only the calls that are watched cost anything.
    return [tracer, "-f", "--seccomp-bpf", "-qq", "-e", watched, "-o", str(trace)] if tracer else []


@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: no sockets seen"
)
def test_sockets_would_be_seen(tmp_path: Path) -> None:
    code = "import socket; socket.socket().close()"
    trace = tmp_path / "trace"
    subprocess.run([*_tracer(trace), sys.executable, "-c", code], check=True)
    assert "socket(" in trace.read_text()


@pytest.mark.parametrize("package", ["allmem_runtime", "allmem_exporters", "benchmarks"])
def test_telemetry_is_off_before_onnx_runtime_is_imported(package: str) -> None:
    code = (
        f"import sys, os, {package}; "
        "print('onnxruntime' in sys.modules, os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / part) for part in ("", "custom_ops", "exporters"))
    environment = {**os.environ, "PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["False", "1"]
