"""llama.cpp's own benchmark tool: it makes its own tokens, reads them to a depth, and measures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.peers.child import Gone


def find_tool(given: Path | None) -> Path | None:
    """The tool that was named, or the one on the path."""
    if given is not None:
        return given
    found = shutil.which("llama-bench")
    return Path(found) if found else None


def command(tool: Path, model: Path, threads: int, depth: int, sizes: dict[str, int]) -> list[str]:
    """Its command line; every test is done once."""
    return [
        str(tool), "-m", str(model), "-t", str(threads), "-p", str(sizes["prompt"]),
        "-n", str(sizes["written"]), "-d", str(depth), "-r", "1", "-o", "json",
    ]  # fmt: skip


def measure(
    tool: Path, model: Path, threads: int, depth: int, sizes: dict[str, int], deadline: float
) -> dict[str, float]:
    """Seconds for a prompt and for written tokens, by the names of ``sizes``.

    Raises:
        Gone: it failed, or there was no time.
    """
    lines = command(tool, model, threads, depth, sizes)
    return parse(_run(lines, deadline), sizes)


def parse(text: str, sizes: dict[str, int]) -> dict[str, float]:
    """Seconds out of what it printed.

    Raises:
        Gone: what it printed is not what was asked for.
    """
    found: dict[str, float] = {}
    try:
        for test in json.loads(text):
            seconds = float(test["avg_ns"]) * 1e-9
            if test["n_prompt"] == sizes["prompt"] and not test["n_gen"]:
                found["prompt"] = seconds
            elif test["n_gen"] == sizes["written"] and not test["n_prompt"]:
                found["written"] = seconds
    except (ValueError, KeyError, TypeError) as error:
        raise Gone(f"llama-bench printed something else ({error})") from None
    missing = {name for name, size in sizes.items() if size} - found.keys()
    if missing:
        raise Gone(f"llama-bench did not measure {', '.join(sorted(missing))}")
    return found


def start_seconds(tool: Path, model: Path, threads: int, prompt: int, deadline: float) -> float:
    """From the start of its process to the end of a prompt of this size; nothing is warmed up."""
    lines = command(tool, model, threads, 0, {"prompt": prompt, "written": 0})
    began = time.perf_counter()
    _run([*lines, "--no-warmup"], deadline)
    return time.perf_counter() - began


def _run(lines: list[str], deadline: float) -> str:
    left = deadline - time.monotonic()
    # Its libraries lie beside it where it was built and not installed.
    beside = str(Path(lines[0]).resolve().parent)
    paths = os.pathsep.join(filter(None, [beside, os.environ.get("LD_LIBRARY_PATH")]))
    try:
        done = subprocess.run(
            lines,
            capture_output=True,
            text=True,
            timeout=max(left, 0.01),
            env={**os.environ, "LD_LIBRARY_PATH": paths},
        )
    except subprocess.TimeoutExpired:
        raise Gone("no time was left") from None
    except OSError as error:
        raise Gone(f"{lines[0]} does not start: {error.strerror}") from None
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise Gone(f"llama-bench ended with {done.returncode}: {words[-1] if words else ''}"[:300])
    return done.stdout
