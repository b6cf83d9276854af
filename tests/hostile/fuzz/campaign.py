"""Goes through the formats in turns until the time is up; where it ended, the next one goes on."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hostile.fuzz.outcome import outcome
from hostile.fuzz.table import format_named
from hostile.fuzz.worker import Bench
from hostile.fuzz.workers import Worker

_TURN_SECONDS = 60.0
"""Of a format; a new process loads what it needs for each."""
_BATCH = 50


def campaign(folder: Path, names: list[str], minutes: float, seed: str = "") -> int:
    """Fuzz formats for some minutes and print what was found.

    Args:
        folder: where examples, corpus, findings and the counts lie.
        names: of the formats.
        minutes: until the end.
        seed: another one makes other examples.

    Returns:
        1 if there was a finding, else 0.
    """
    end = time.monotonic() + 60 * minutes
    worker = Worker(seed)
    told: set[str] = set()
    try:
        while time.monotonic() < end:
            for name in names:
                _turn(worker, name, folder / name, min(_TURN_SECONDS, 2 * minutes), told)
                worker.close()  # what a format leaves in the process is not the next one's
    except KeyboardInterrupt:
        pass
    finally:
        worker.close()
        _summary(folder, names)
    return 1 if told else 0


def replay(finding: Path) -> int:
    """Read a finding once more, in this process, and print what comes of it.

    Args:
        finding: its folder, as a campaign printed it.
    """
    form = format_named(finding.parents[1].name)
    with tempfile.TemporaryDirectory() as made:
        bench = Bench(form, Path(made))
        work = Path(made) / "again"
        shutil.copytree(finding / "files", work)
        came = outcome(form, bench.read, work)
    print(f"{came.kind}: {came.what}\n{came.detail}")
    return 1 if came.kind == "finding" else 0


def _turn(worker: Worker, name: str, folder: Path, seconds: float, told: set[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "counts.json"
    counts: Counter[str] = Counter(json.loads(record.read_text()) if record.is_file() else {})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for answer in worker.run(name, folder, counts["next"], _BATCH):
            if answer["number"] < 0:
                if answer["kind"] != "read":
                    print(f"{name}: the good example is not read: {answer}", file=sys.stderr)
                continue
            counts[answer["kind"]] += 1
            if answer["kind"] == "finding":
                if answer["kept"] in told:
                    continue
                told.add(answer["kept"])
                again = f"{sys.executable} tests/hostile/fuzz --replay {answer['kept']}"
                print(f"{name}: {answer['what']}\n    {again}", flush=True)
        counts["next"] += _BATCH
        record.write_text(json.dumps(counts))


def _summary(folder: Path, names: list[str]) -> None:
    print(f"{'format':<12}{'read':>10}{'refused':>10}{'findings':>10}  kinds of findings")
    for name in names:
        record, kinds = folder / name / "counts.json", folder / name / "findings"
        counts = json.loads(record.read_text()) if record.is_file() else {}
        numbers = [counts.get(kind, 0) for kind in ("read", "refused", "finding")]
        count = len(list(kinds.iterdir())) if kinds.is_dir() else 0
        print(f"{name:<12}" + "".join(f"{number:>10,}" for number in numbers) + f"  {count}")
