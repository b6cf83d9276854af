"""One long text read in one go: how the fast weights grow, and whether the text gets harder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.errors import SourceError
from allmem_runtime.evaluation.blank_memory import (
    EvaluationSession,
    InitialWeights,
    initial_weights,
)
from allmem_runtime.evaluation.loading import Models
from allmem_runtime.evaluation.numbers import Mean
from allmem_runtime.evaluation.perplexity import losses
from allmem_runtime.evaluation.results import Record, Results, key_of
from allmem_runtime.evaluation.rows import Group
from allmem_runtime.evaluation.tables import Table
from allmem_runtime.model import Model
from allmem_runtime.quantities import format_tokens

Stretch = dict[str, Any]
"""``start``, ``end``, ``nats`` per token in between, ``growth`` of each layer at the end."""


def read_ids(
    texts: Sequence[Path], encode: Callable[[str], list[int]], length: int
) -> tuple[int, ...]:
    """The first tokens of the texts, one text after the other, and one more to predict.

    Raises:
        SourceError: a text cannot be read, or they are too short.
    """
    ids: list[int] = []
    for path in texts:
        try:
            ids += encode(path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}).", "Check it.") from None
    if len(ids) <= length:
        raise SourceError(
            f"The texts have {len(ids):,} tokens; {length + 1:,} are wanted.",
            "Name more texts, or a shorter --length.",
        )
    return tuple(ids[: length + 1])


def row_norms(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Norms of the rows of gate, up and down, one vector for a layer.

    Args:
        weights: [1, heads, 3, hidden, memory_dim] as the state holds them, down transposed.
    """
    gate, up, down = np.moveaxis(weights[0].astype(np.float64), 1, 0)
    return np.concatenate(
        [
            np.linalg.norm(gate, axis=-1).ravel(),
            np.linalg.norm(up, axis=-1).ravel(),
            np.linalg.norm(down, axis=-2).ravel(),
        ]
    )


def growth(now: InitialWeights, initial: InitialWeights) -> list[float]:
    """The largest row of each layer relative to the same row before anything was written."""
    return [
        float((row_norms(now[name]) / np.maximum(row_norms(first), 1e-30)).max())
        for name, first in initial.items()
    ]


def stretches(
    session: EvaluationSession,
    ids: Sequence[int],
    step: int,
    initial: InitialWeights,
    first: int = 0,
) -> Iterator[Stretch]:
    """Read on and on, and tell after each ``step`` tokens what they were like.

    Args:
        session: blank, or after the stretches before ``first``.
        ids: the text and one token more.
        step: tokens of a stretch.
        initial: what ``initial_weights`` gave for the same model.
        first: number of the stretch to begin with.
    """
    begin: Sequence[int] = () if first else session.model.manifest.begin_tokens
    for start in range(first * step, len(ids) - 1, step):
        end = min(start + step, len(ids) - 1)
        found = losses(session, begin, ids[start : end + 1], lambda at: None)
        begin = ()
        yield {
            "start": start,
            "end": end,
            "nats": float(found.mean()),
            "growth": growth(session.fast_weights(), initial),
        }


class Drift:
    """Reads a text with each row; with a file of results it goes on where it was cut off.

    Args:
        models: where models come from.
        results: where stretches are kept.
        say: told a line after each stretch.
        over: whether the time is over; asked before each stretch.
        path: of the results; sessions of unfinished rows lie beside it. None keeps nothing.
    """

    def __init__(
        self,
        models: Models,
        results: Results,
        say: Callable[[str], None],
        over: Callable[[], bool] = lambda: False,
        path: Path | None = None,
    ) -> None:
        self._models = models
        self._results = results
        self._say = say
        self._over = over
        self._path = path

    def run(
        self, groups: Sequence[Group], ids: Sequence[int], step: int
    ) -> dict[str, list[Record]]:
        """The stretches that each row has read, in order; no row may be a reset one."""
        digest = hashlib.sha256(np.asarray(ids, np.int64).tobytes()).hexdigest()
        total = -(-(len(ids) - 1) // step)
        found: dict[str, list[Record]] = {}
        for group in groups:
            for row in group.rows:
                blank: Record = {
                    "row": row.name, "model": group.package.digest, "reset": False,
                    "task": "drift", "column": f"{len(ids) - 1}/{step}", "question": 0,
                    "prompt": digest,
                }  # fmt: skip
                known = [self._results.get(key_of({**blank, "sample": n})) for n in range(total)]
                kept = list(takewhile(bool, known))
                found[row.name] = [record for record in kept if record is not None]
                if len(kept) < total and not self._over():
                    self._read(group, blank, ids, step, found[row.name])
        return found

    def _read(
        self, group: Group, blank: Record, ids: Sequence[int], step: int, done: list[Record]
    ) -> None:
        """Read on behind the stretches that are done, and add the next ones to them."""
        model = self._models.get(group.package)
        file = self._session_file(blank)
        session = _reopened(model, file, len(done) * step) if done else None
        if session is None:
            done.clear()
            session = EvaluationSession(model, undo=False)
        begun, before = time.perf_counter(), len(done)
        for stretch in stretches(session, ids, step, initial_weights(model), before):
            if file is not None:
                session.save(file)
            record = {**blank, "sample": len(done), **stretch}
            self._results.add(record)
            done.append(record)
            self._say(
                f"{blank['row']}: {stretch['end']:,} of {len(ids) - 1:,} tokens: "
                f"{stretch['nats']:.4f} nats per token, rows up to {max(stretch['growth']):.3f} of "
                f"their first length  ({time.perf_counter() - begun:.0f} s)"
            )
            if stretch["end"] == len(ids) - 1:
                if file is not None:
                    file.unlink()
            elif self._over():
                return

    def _session_file(self, blank: Record) -> Path | None:
        if self._path is None:
            return None
        name = hashlib.sha256(json.dumps(blank, sort_keys=True).encode()).hexdigest()[:16]
        return self._path.with_name(f"{self._path.name}.{name}.allmem")


def _reopened(model: Model, file: Path | None, tokens: int) -> EvaluationSession | None:
    """The session that stands behind this many tokens of the text, if it was kept."""
    if file is None or not file.exists():
        return None
    session = EvaluationSession.opened(model, file, undo=False)
    expected = len(model.manifest.begin_tokens) + tokens
    return session if session.position + session.pending == expected else None


def tables(found: Mapping[str, Sequence[Record]], length: int, step: int) -> list[Table]:
    """Perplexity by stretch, growth at its end, and the last stretch against the second."""
    names, bounds = list(found), [*range(0, length, step), length]
    columns = [f"{format_tokens(a)}–{format_tokens(b)}" for a, b in pairwise(bounds)]
    ratio = Table("perplexity, by position", names, columns, 2)
    rows = Table("longest row of the fast weights, 1 at first, at the end of", names, columns, 3)
    second, last = columns[1], columns[-1]
    heads = [f"perplexity {second}", f"perplexity {last}", "change, %", "growth"]
    change = Table("drift", names, heads, 2)
    for name, records in found.items():
        for column, stretch in zip(columns, records, strict=False):
            ratio.cells[name, column] = _one(float(np.exp(stretch["nats"])))
            rows.cells[name, column] = _one(max(stretch["growth"]))
        first, end = ratio.cells.get((name, second)), ratio.cells.get((name, last))
        if first is None or end is None:
            continue
        most = max(max(stretch["growth"]) for stretch in records)
        values = (first.value, end.value, 100 * (end.value / first.value - 1), most)
        change.cells |= {(name, h): _one(v) for h, v in zip(heads, values, strict=True)}
    change.note = "Other places of a text differ of themselves: compare the rows with each other."
    return [ratio, rows, change]


def _one(value: float) -> Mean:
    return Mean(value, None, 1)
