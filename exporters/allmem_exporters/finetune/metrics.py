"""Metrics of a run as JSON lines, and a plot of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from allmem_runtime.errors import StorageError
from allmem_runtime.files.atomic import USUAL, replace_text
from allmem_runtime.strict_json import is_whole


class MetricsFile:
    """One JSON object a line: ``{"what": "step" or "heldout", "step": …, …}``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, what: str, step: int, **figures: Any) -> None:
        """Append a line.

        Raises:
            StorageError: there is no room, or the folder cannot be written.
        """
        line = json.dumps({"what": what, "step": step, **_rounded(figures)})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise StorageError(
                f"{self.path} could not be written ({error.strerror}).",
                "Check free space and permissions; the same command goes on where it was saved.",
            ) from error

    def has(self, what: str, step: int) -> bool:
        """Whether there is such a line."""
        lines = self.read() if self.path.exists() else []
        return any((line["what"], line["step"]) == (what, step) for line in lines)

    def keep_until(self, step: int) -> None:
        """Drop what was written after the step from which a run goes on."""
        if not self.path.exists():
            return
        kept = [line for line in self.read() if line["step"] <= step] if step else []
        text = "".join(json.dumps(line) + "\n" for line in kept)
        replace_text(self.path, text, mode=USUAL)

    def read(self) -> list[dict[str, Any]]:
        """All lines; one that a kill cut short, or that is not ours, is left out."""
        lines = []
        for text in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)  # figures may be no numbers
            except (ValueError, RecursionError):
                continue
            if _is_ours(line):
                lines.append(line)
        return lines


def _is_ours(line: Any) -> bool:
    if not isinstance(line, dict) or not is_whole(line.get("step"), 0, 1 << 62):
        return False
    what = line.get("what")
    return what == "heldout" or (what == "step" and isinstance(line.get("loss"), (int, float)))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return value


def plot(metrics: MetricsFile, path: Path) -> None:
    """Draw loss, held-out KL and the memories' writing over the steps.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    lines = metrics.read()
    steps = [line for line in lines if line["what"] == "step"]
    heldout = [line for line in lines if line["what"] == "heldout"]
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    loss, kl, alpha, growth = axes.flat
    loss.plot([s["step"] for s in steps], [s["loss"] for s in steps], linewidth=0.8)
    loss.set(title="training loss", xlabel="step")
    for name, label in (("kl", "with memories"), ("kl_window", "window and sinks only")):
        told = [h for h in heldout if name in h]
        kl.plot([h["step"] for h in told], [h[name] for h in told], marker=".", label=label)
    kl.set(title="held-out KL past the window (nats)", xlabel="step", ylim=(0, None))
    kl.legend()
    for axis, name, title in ((alpha, "alpha", "norm of alpha, a line a layer"),
                              (growth, "growth", "growth of the fast weights' rows")):  # fmt: skip
        axis.plot([h["step"] for h in heldout], [h[name] for h in heldout], linewidth=0.7)
        axis.set(title=title, xlabel="step")
    figure.savefig(path, dpi=110)
