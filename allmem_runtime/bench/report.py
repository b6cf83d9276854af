"""What a benchmark found: lines for people, a file for programs, a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from allmem_runtime import __version__
from allmem_runtime.bench.measure import Ratios, Row
from allmem_runtime.bench.texts import Text
from allmem_runtime.engine.probe import runtime_version
from allmem_runtime.engine.threads import cpu_threads
from allmem_runtime.files.atomic import replace_text
from allmem_runtime.machine import machine
from allmem_runtime.model import Model
from allmem_runtime.plotting import picture
from allmem_runtime.quantities import format_bytes, format_tokens


class Report:
    """Everything found so far.

    Args:
        model: what was measured.
        text: what it read.
        threads: CPU threads of a step; None is what a model takes unless it is told.
        load_seconds: until the model was open.
        path: file that holds all of it after each row, or None.
    """

    def __init__(
        self,
        model: Model,
        text: Text,
        threads: int | None,
        load_seconds: float,
        path: Path | None,
    ) -> None:
        self.rows: list[Row] = []
        self._path = path
        self.values: dict[str, Any] = {
            "what": "allmem bench",
            "version": __version__,
            "onnxruntime": runtime_version(),
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine().as_json(),
            "device": str(model.device),
            "operators": model.operators,
            "threads": cpu_threads(threads),
            "model": {
                "name": model.name,
                "digest": model.package.digest,
                "weights": model.manifest.weights,
                "cache": model.manifest.cache,
                "window": model.manifest.window,
                "sinks": model.manifest.sinks,
                "chunk": model.manifest.chunk,
            },
            "text": {"name": text.name, "tokens": len(text.ids), "digest": text.digest},
            "load_seconds": load_seconds,
            "piece": model.piece,
            "rows": [],
            "far_over_near": None,
            "interrupted": False,
        }

    def row(self, row: Row) -> None:
        """A depth was measured."""
        self.rows.append(row)
        self.values["rows"].append(row.as_json())
        self.keep()

    def ratios(self, ratios: Ratios) -> None:
        """Two depths were compared alternately."""
        self.values["far_over_near"] = ratios.as_json()
        self.keep()

    def interrupted(self) -> None:
        """Ctrl-C came."""
        self.values["interrupted"] = True
        self.keep()

    def keep(self) -> None:
        """Write the file.

        Raises:
            StorageError: it cannot be written.
        """
        if self._path is None:
            return
        text = json.dumps(self.values, indent=2)
        replace_text(self._path, text + "\n")


def columns(prompts: Sequence[int]) -> list[tuple[str, int]]:
    """Names and widths of the columns of the table."""
    names = [("tokens read", 11), ("reading tok/s", 13), ("decode tok/s", 20)]
    for count in prompts:
        names += [(f"prompt of {count} tok/s", 21), ("its first token, ms", 21)]
    return [*names, ("resident", 8), ("private", 8), ("state", 8)]


def heading(prompts: Sequence[int]) -> str:
    """The first line of the table."""
    return "  ".join(f"{name:>{width}}" for name, width in columns(prompts))


def line(row: Row) -> str:
    """One line of the table."""
    reached, prompts = row.reached, list(row.first_token)
    speed = f"{reached.tokens / reached.seconds:,.0f}" if reached.tokens else "–"
    cells = [format_tokens(row.depth), "kept" if reached.kept else speed, row.decode.text(1)]
    for count, seconds in row.first_token.items():
        cells += [row.prefill(count).text(), seconds.map(lambda s: s * 1e3).text()]
    private = "–" if row.private is None else format_bytes(row.private)
    cells += [format_bytes(row.resident), private, format_bytes(row.state)]
    widths = [width for _, width in columns(prompts)]
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def ratio_line(ratios: Ratios) -> str:
    """How two depths compare."""
    return (
        f"at {format_tokens(ratios.far)} over {format_tokens(ratios.near)} tokens read, "
        f"alternately: decode speed {ratios.decode.text(3)}, "
        f"time to first token {ratios.first_token.text(3)}"
    )


def plot(report: Report, path: Path) -> None:
    """Speed of writing and memory against tokens read.

    Raises:
        StorageError: the file cannot be written.
    """
    depths = [row.depth for row in report.rows]
    median = [row.decode.median for row in report.rows]
    error = [
        [row.decode.median - row.decode.lowest for row in report.rows],
        [row.decode.highest - row.decode.median for row in report.rows],
    ]
    with picture(path, 1, 2, (10, 3.8)) as figure:
        speed, memory = figure.axes
        speed.errorbar(depths, median, yerr=error, marker="o", capsize=3)
        speed.set_title("tokens written in a second")
        resident = [row.resident / 2**20 for row in report.rows]
        memory.plot(depths, resident, marker="o", label="resident")
        memory.plot(depths, [row.state / 2**20 for row in report.rows], marker="o", label="state")
        memory.set_title("memory, MiB")
        memory.legend()
        for axis in (speed, memory):
            axis.set_xscale("symlog", linthresh=1024)
            axis.set_xticks(depths, [format_tokens(depth) for depth in depths])
            axis.set_xlabel("tokens read")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        figure.suptitle(f"{report.values['model']['name']} on {report.values['machine']['name']}")
