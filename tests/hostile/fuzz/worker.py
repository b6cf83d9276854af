"""The child process that spoils and reads; it may be killed at any time, and loses nothing.

Asked by lines of JSON on standard input, it answers with a line for each example on standard
output. The files of the example at hand lie in the folder ``work`` of its format, so that whoever
finds this process dead finds them there.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, TextIO
from unittest.mock import patch

from hostile.fuzz.format import Files, Format, Read, files_in, names_in, write_files
from hostile.fuzz.outcome import Outcome, outcome
from hostile.fuzz.table import format_named
from hostile.fuzz.trials import Trials

from allmem_runtime.text import trial_process

_MOST_KEPT = 400


class Bench:
    """A format at work in a folder of its own.

    The corpus grows by every example that ends in a way no other did, so that the next are made
    from those that got further. Where the corpus is the same, a number makes the same example of
    the same seed.
    """

    def __init__(self, form: Format, folder: Path, seed: str = "") -> None:
        self.form, self.folder, self.seed = form, folder, seed
        self.good = folder / "good"
        if not self.good.is_dir():
            new = folder / "good.new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            form.make(new)
            new.rename(self.good)
        self.files = files_in(self.good)
        self.work = folder / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.good, self.work)
        self.read: Read = form.reader(self.good)
        self.corpus: list[Files] = [
            files_in(path) for path in sorted((folder / "corpus").glob("*"))
        ]
        self.seen: set[str] = set()
        self._changed: Files = {}

    def good_outcome(self) -> Outcome:
        """What comes of the example as it was made."""
        return outcome(self.form, self.read, self.work)

    def one(self, number: int) -> Outcome:
        """Make and read the example of a number."""
        draw = Random(f"{self.form.name} {self.seed}{number}")
        start = draw.choice(self.corpus) if self.corpus and draw.random() < 0.4 else {}
        try:
            changed = {**start, **self.form.mutate({**self.files, **start}, draw)}
        except Exception:  # what was spoiled before cannot be taken apart any more
            changed = self.form.mutate(self.files, draw)
        write_files(self.work, {name: self.files.get(name, b"") for name in self._changed})
        write_files(self.work, changed)
        self._changed = changed
        found = outcome(self.form, self.read, self.work)
        for name in set(names_in(self.work)) - self.files.keys() - changed.keys():
            (self.work / name).unlink()  # what a command left there
        if found.kind != "read" and found.what not in self.seen:
            self.seen.add(found.what)
            if found.kind == "refused":
                self._keep(changed)
        return found

    def _keep(self, changed: Files) -> None:
        if len(self.corpus) < _MOST_KEPT and sum(map(len, changed.values())) < 1 << 20:
            self.corpus.append(changed)
            write_files(self.folder / "corpus" / f"{len(self.corpus):05}", changed)

    def save_finding(self, what: str, detail: str) -> Path:
        """Keep the example at hand where nothing will delete it; one for each kind of finding."""
        return save_finding(self.folder, what, detail)


def save_finding(folder: Path, what: str, detail: str) -> Path:
    """Copy a format's example at hand and what came of it into its findings."""
    kept = folder / "findings" / hashlib.sha256(what.encode()).hexdigest()[:12]
    if not kept.exists():
        shutil.copytree(folder / "work", kept / "files")
        (kept / "finding.txt").write_text(f"{what}\n\n{detail}\n", errors="replace")
    return kept


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests ``{"format", "folder", "seed", "first", "count"}`` until there are none."""
    benches: dict[str, Bench] = {}
    for line in requests:
        asked: dict[str, Any] = json.loads(line)
        name = asked["format"]
        if name not in benches:
            benches[name] = Bench(format_named(name), Path(asked["folder"]), asked["seed"])
            gc.collect()
            gc.freeze()  # commands that collect garbage need not look at all that was loaded
        bench = benches[name]
        if asked["first"] == 0:
            _tell(answers, number=-1, **asdict(bench.good_outcome()))
        for number in range(asked["first"], asked["first"] + asked["count"]):
            found = bench.one(number)
            kept = bench.save_finding(found.what, found.detail) if found.kind == "finding" else ""
            _tell(answers, number=number, kept=str(kept), **asdict(found))
        _tell(answers, number=-2)


def _tell(answers: TextIO, **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def main() -> None:
    """Serve on the standard streams; what libraries print goes nowhere."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if "FUZZ_STDERR" not in os.environ:
        os.dup2(nowhere, 2)
    with patch.object(trial_process, "_told", Trials().told):
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
