"""One long text read in one go: how the fast weights grow, and whether the text gets harder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
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
from allmem_runtime.evaluation.lengths import length_name
from allmem_runtime.evaluation.loading import Models
from allmem_runtime.evaluation.numbers import Mean
from allmem_runtime.evaluation.perplexity import losses
from allmem_runtime.evaluation.results import Record, Results, key_of
from allmem_runtime.evaluation.rows import Group
from allmem_runtime.evaluation.tables import Table

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
    session: EvaluationSession, ids: Sequence[int], step: int, initial: InitialWeights
) -> Iterator[Stretch]:
    """Read on and on, and tell after each ``step`` tokens what they were like.

    Args:
        session: blank.
        ids: the text and one token more.
        step: tokens of a stretch.
        initial: what ``initial_weights`` gave for the same model.
    """
    begin: Sequence[int] = session.model.manifest.begin_tokens
    for start in range(0, len(ids) - 1, step):
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
    """Reads a text with each row.

    Args:
        models: where models come from.
        results: where finished rows are kept.
        say: told a line after each stretch.
        over: whether the time is over; asked before each stretch.
    """

    def __init__(
        self,
        models: Models,
        results: Results,
        say: Callable[[str], None],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._models = models
        self._results = results
        self._say = say
        self._over = over

    def run(self, groups: Sequence[Group], ids: Sequence[int], step: int) -> list[Record]:
        """A record of each row that has read the whole text; none of them may be a reset one."""
        digest = hashlib.sha256(np.asarray(ids, np.int64).tobytes()).hexdigest()
        records: list[Record] = []
        for group in groups:
            for row in group.rows:
                record: Record = {
                    "row": row.name, "model": group.package.digest, "reset": False,
                    "task": "drift", "column": f"{len(ids) - 1}/{step}", "sample": 0,
                    "question": 0, "prompt": digest,
                }  # fmt: skip
                known = self._results.get(key_of(record))
                if known is None:
                    read = self._read(group, row.name, ids, step)
                    if read is None:
                        return records
                    known = {**record, **read}
                    self._results.add(known)
                records.append(known)
        return records

    def _read(self, group: Group, name: str, ids: Sequence[int], step: int) -> Record | None:
        model = self._models.get(group.package)
        begun, found = time.perf_counter(), list[Stretch]()
        session = EvaluationSession(model, undo=False)
        for stretch in stretches(session, ids, step, initial_weights(model)):
            found.append(stretch)
            self._say(
                f"{name}: {stretch['end']:,} of {len(ids) - 1:,} tokens: {stretch['nats']:.4f} "
                f"nats per token, rows up to {max(stretch['growth']):.3f} of their first length  "
                f"({time.perf_counter() - begun:.0f} s)"
            )
            if self._over() and stretch["end"] < len(ids) - 1:
                return None
        return {"stretches": found, "seconds": round(time.perf_counter() - begun, 1)}


def tables(records: Sequence[Record]) -> list[Table]:
    """Perplexity by stretch, growth at its end, and the last stretch against the second."""
    names = [record["row"] for record in records]
    parts = records[0]["stretches"]
    columns = [f"{length_name(s['start'])}–{length_name(s['end'])}" for s in parts]
    ratio = Table("perplexity, by position", names, columns, 2)
    rows = Table("longest row of the fast weights, 1 at first, at the end of", names, columns, 3)
    second, last = columns[min(1, len(columns) - 1)], columns[-1]
    heads = [f"perplexity {second}", f"perplexity {last}", "change, %", "growth"]
    change = Table("drift", names, heads, 2)
    for record in records:
        name, found = record["row"], record["stretches"]
        for column, stretch in zip(columns, found, strict=True):
            ratio.cells[name, column] = _one(float(np.exp(stretch["nats"])))
            rows.cells[name, column] = _one(max(stretch["growth"]))
        first, end = ratio.cells[name, second], ratio.cells[name, last]
        assert first is not None and end is not None
        most = max(max(stretch["growth"]) for stretch in found)
        values = (first.value, end.value, 100 * (end.value / first.value - 1), most)
        change.cells |= {(name, h): _one(v) for h, v in zip(heads, values, strict=True)}
    change.note = "Other places of a text differ of themselves: compare the rows with each other."
    return [ratio, rows, change]


def _one(value: float) -> Mean:
    return Mean(value, None, 1)
