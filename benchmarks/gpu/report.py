"""What was measured: printed as it comes, and written whole after each line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from allmem_runtime.files.atomic import USUAL, replace_text
from benchmarks.gpu.timing import Race

REHEARSAL = "REHEARSAL on the CPU: these are no speeds"


class Report:
    """Rows of a run.

    Args:
        machine: what it ran on.
        rehearsal: whether nothing in it is a measurement.
        path: of a JSON file that always holds all rows so far.
        minutes: how long the run may take; None is no limit.
    """

    def __init__(
        self,
        machine: dict[str, str],
        *,
        rehearsal: bool = False,
        path: Path | None = None,
        minutes: float | None = None,
    ) -> None:
        self.rehearsal = rehearsal
        self.rows: list[dict[str, Any]] = []
        self._machine = machine
        self._path = path
        self._begun = time.monotonic()
        self._minutes = minutes
        if rehearsal:
            print(REHEARSAL)
        for name, value in machine.items():
            print(f"{name:20s} {value}")
        self._write()

    def seconds_left(self) -> float:
        """Until the time is up."""
        if self._minutes is None:
            return float("inf")
        return 60 * self._minutes - (time.monotonic() - self._begun)

    def add(self, section: str, name: str, **figures: object) -> None:
        """One measurement."""
        self._row({"section": section, "name": name, **figures})
        shown = ", ".join(f"{key} {_text(value)}" for key, value in figures.items())
        print(f"{'(rehearsal) ' if self.rehearsal else ''}{section}: {name}: {shown}", flush=True)

    def not_run(self, section: str, name: str, why: str) -> None:
        """Something that was to be measured, and why it was not."""
        self._row({"section": section, "name": name, "not run": why})
        print(f"not run: {section}: {name} ({why})", flush=True)

    def race(self, section: str, name: str, race: Race, ours: str, **figures: object) -> None:
        """All of a race: times, and how many times as long as ours the others took."""
        if ours in race.seconds:
            self.add(section, name, way=ours, milliseconds=1e3 * race.median(ours), **figures)
        for other in race.seconds:
            if other != ours:
                found: dict[str, object] = {"milliseconds": 1e3 * race.median(other)}
                if ours in race.seconds:
                    middle, low, high = race.ratio(other, ours)
                    found |= {"over ours": middle, "from": low, "to": high}
                self.add(section, name, way=other, **found)
        for way, note in race.notes.items():
            self.add(section, name, way=way, note=note)
        for way, why in race.failures.items():
            self.not_run(section, f"{name}, {way}", why)

    def _row(self, row: dict[str, Any]) -> None:
        self.rows.append({**row, "after seconds": round(time.monotonic() - self._begun, 1)})
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        document = {"rehearsal": self.rehearsal, "machine": self._machine, "rows": self.rows}
        replace_text(self._path, json.dumps(document, indent=1) + "\n", mode=USUAL)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
