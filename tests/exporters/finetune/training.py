"""A training run of a few steps, and the figures it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allmem_exporters.finetune.metrics import MetricsFile
from allmem_exporters.finetune.run import finetune
from allmem_exporters.finetune.settings import from_dict

SETTINGS: dict[str, Any] = {
    "steps": 6, "save_every": 2, "evaluate_every": 3, "evaluate_sequences": 2,
    "draws": {"window": [16, 24], "sinks": [0, 4], "chunk": [8, 16]},
    "optimizer": {"learning_rate": 3e-3, "alpha_learning_rate": 3e-2},
}  # fmt: skip


def run(checkpoint: Path, data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    show = changes.pop("show", lambda step: None)
    return finetune(checkpoint, data, out, from_dict({**SETTINGS, **changes}), show=show)


def figures(out: Path) -> list[dict[str, Any]]:
    """All figures of a run but the time its steps took."""
    lines = MetricsFile(out / "metrics.jsonl").read()
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
