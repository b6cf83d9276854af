"""Nats per token of plain text, by position, each segment read from the beginning."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.errors import SourceError, UsageError
from allmem_runtime.evaluation.blank_memory import (
    EvaluationSession,
    InitialWeights,
    initial_weights,
)
from allmem_runtime.evaluation.loading import BLOCK, Models
from allmem_runtime.evaluation.numbers import mean
from allmem_runtime.evaluation.results import Record, Results, key_of
from allmem_runtime.evaluation.rows import Group, Row
from allmem_runtime.evaluation.tables import Table
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.quantities import format_tokens

STEP = 2048
_STEPS = 4
_FEED = 2048
"""Tokens whose logits are asked for at once; they come piece by piece all the same."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a text, read from a blank state.

    Args:
        text: number of the text it comes from.
        start: its first token within that text.
        ids: its tokens.
    """

    text: int
    start: int
    ids: tuple[int, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the tokens."""
        return hashlib.sha256(np.asarray(self.ids, np.int64).tobytes()).hexdigest()


def edges_of(length: int) -> list[int]:
    """Bounds of the buckets: steps of 2k up to 8k, then twice as far each time."""
    edges = [0]
    while edges[-1] < length:
        edges.append(edges[-1] + STEP if len(edges) <= _STEPS else 2 * edges[-1])
    edges[-1] = length
    return edges


def segments(
    texts: Sequence[Path], encode: Callable[[str], list[int]], length: int, samples: int, seed: int
) -> list[Segment]:
    """Stretches of the texts, at most this long and this many; which of them the seed says.

    A text shorter than the length is one stretch; a rest shorter than half of it is left out.

    Raises:
        SourceError: a text cannot be read, or is too short to say anything.
    """
    found: list[Segment] = []
    for number, path in enumerate(texts):
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}).", "Check it.") from None
        ids = encode(content)
        if len(ids) < 2:
            raise SourceError(f"{path} has fewer than two tokens.", "Name a text.")
        for start in range(0, len(ids), length):
            piece = tuple(ids[start : start + length])
            if start == 0 or len(piece) >= max(2, length // 2):
                found.append(Segment(number, start, piece))
    chosen = random.Random(seed).sample(range(len(found)), min(samples, len(found)))
    return [found[i] for i in sorted(chosen)]


def losses(
    session: EvaluationSession,
    begin: Sequence[int],
    ids: Sequence[int],
    forget_at: Callable[[int], InitialWeights | None],
) -> NDArray[np.float64]:
    """-log p of each token but the first, in nats.

    Args:
        session: blank.
        begin: tokens every text begins with.
        ids: the text.
        forget_at: asked before each multiple of ``STEP``; the memory goes back to these.
    """
    session.feed(begin)
    found: list[NDArray[np.float64]] = []
    last = len(ids) - 1
    for start in range(0, last, _FEED):
        initial = forget_at(start)
        if initial is not None:
            session.forget_memory(initial)
        at = start
        for rows in session.logits_all(ids[start : min(start + _FEED, last)]):
            following = np.asarray(ids[at + 1 : at + 1 + len(rows)])
            scores = rows.astype(np.float64)
            scores -= scores.max(axis=1, keepdims=True)
            right = scores[np.arange(len(following)), following]
            found.append(np.log(np.exp(scores).sum(axis=1)) - right)
            at += len(rows)
    return np.concatenate(found)


class Perplexity:
    """Measures rows on segments.

    Args:
        models: where models come from.
        results: where they are kept.
        say: told a line after each segment.
        edges: bounds of the buckets.
        over: whether the time is over; asked before each segment.
    """

    def __init__(
        self,
        models: Models,
        results: Results,
        say: Callable[[str], None],
        edges: Sequence[int],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._models = models
        self._results = results
        self._say = say
        self._edges = list(edges)
        self._over = over
        self._initial: dict[str, InitialWeights] = {}

    def run(self, groups: Sequence[Group], parts: Sequence[Segment]) -> list[Record]:
        """The results of all rows on all segments; what is known is not measured again.

        All rows read a segment before the next one comes, so that they are even where the time
        ends.
        """
        blank = {
            (row.name, sample): self._blank_record(group, row, sample, part)
            for sample, part in enumerate(parts)
            for group in groups
            for row in group.rows
        }
        found = {place: self._known(record) for place, record in blank.items()}
        records = [record for record in found.values() if record is not None]
        size = 1 if self._models.all_fit(groups) else BLOCK
        for start in range(0, len(parts), size):
            for group in groups:
                session: EvaluationSession | None = None
                for sample in range(start, min(start + size, len(parts))):
                    for row in group.rows:
                        if found[row.name, sample] is not None:
                            continue
                        if self._over():
                            return records
                        session = session or EvaluationSession(
                            self._models.get(group.package), undo=False
                        )
                        initial = self._blank_memory(group, session.model) if row.reset else None
                        part = parts[sample]
                        record = {
                            **blank[row.name, sample],
                            **self._measure(session, initial, part),
                        }
                        self._results.add(record)
                        records.append(record)
                        self._say(
                            f"[{len(records)}/{len(blank)}] {row.name}: segment {sample}, "
                            f"{len(part.ids):,} tokens: {record['nats']:.4f} nats per token  "
                            f"({record['seconds']:.1f} s)"
                        )
        return records

    def _blank_memory(self, group: Group, model: LoadedModel) -> InitialWeights:
        if group.package.digest not in self._initial:
            self._initial[group.package.digest] = initial_weights(model)
        return self._initial[group.package.digest]

    def _known(self, record: Record) -> Record | None:
        return self._results.get(key_of(record))

    def _blank_record(self, group: Group, row: Row, sample: int, part: Segment) -> Record:
        edges = ",".join(str(edge) for edge in self._edges)
        return {
            "row": row.name, "model": group.package.digest, "reset": row.reset,
            "task": "perplexity", "column": edges, "sample": sample, "question": 0,
            "prompt": part.digest, "text": part.text, "start": part.start,
            "tokens": len(part.ids),
        }  # fmt: skip

    def _measure(
        self, session: EvaluationSession, initial: InitialWeights | None, part: Segment
    ) -> Record:
        begun = time.perf_counter()
        session.reset()
        found = losses(
            session,
            session.model.manifest.begin_tokens,
            part.ids,
            lambda at: initial if at % STEP == 0 else None,
        )
        buckets = []
        for low, high in self._pairs():
            # The loss of token i lies at i - 1: the first token is not predicted.
            inside = found[max(0, low - 1) : max(0, high - 1)]
            buckets.append([float(inside.sum()), len(inside)])
        return {
            "nats": float(found.mean()),
            "buckets": buckets,
            "seconds": round(time.perf_counter() - begun, 3),
        }

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return zip(self._edges, self._edges[1:], strict=False)

    def tables(
        self, rows: Sequence[str], records: Sequence[Record], bases: Sequence[str]
    ) -> list[Table]:
        """Nats per token, perplexity, and paired differences to each of ``bases``."""
        columns = [f"{format_tokens(low)}–{format_tokens(high)}" for low, high in self._pairs()]
        whole = f"0–{format_tokens(self._edges[-1])}"
        every = [*columns, whole] if len(columns) > 1 else columns
        nats = Table("nats per token, by position", rows, every, 4)
        ratio = Table("perplexity, by position", rows, every, 2)
        found = {
            (row, column): _bucket(
                {r["sample"]: r for r in records if r["row"] == row},
                number if number < len(columns) else None,
            )
            for row in rows
            for number, column in enumerate(every)
        }
        for place, samples in found.items():
            cell = mean([x for x, _ in samples.values()], [w for _, w in samples.values()])
            nats.cells[place] = cell
            if cell is not None:
                value = float(np.exp(cell.value))
                # The delta method: d exp(x) = exp(x) dx.
                error = None if cell.error is None else value * cell.error
                ratio.cells[place] = type(cell)(value, error, cell.count)
        return [nats, ratio, *(_apart(base, rows, every, found) for base in bases)]


def _apart(
    base: str, rows: Sequence[str], columns: Sequence[str],
    found: dict[tuple[str, str], dict[int, tuple[float, int]]],
) -> Table:  # fmt: skip
    """Differences to one row, segment by segment."""
    others = [row for row in rows if row != base]
    table = Table(f"nats per token above {base!r}, by position", others, columns, 4)
    table.note = "Same tokens in both rows, so the errors are those of paired differences."
    for column in columns:
        first = found[base, column]
        for row in others:
            own = found[row, column]
            both = [sample for sample in own if sample in first]
            table.cells[row, column] = mean(
                [own[s][0] - first[s][0] for s in both], [own[s][1] for s in both]
            )
    return table


def _bucket(records: dict[int, Record], number: int | None) -> dict[int, tuple[float, int]]:
    """(nats per token, tokens) of each sample in a bucket, or in all of them."""
    found = {}
    for sample, record in records.items():
        buckets = record["buckets"] if number is None else [record["buckets"][number]]
        total, count = sum(b[0] for b in buckets), sum(b[1] for b in buckets)
        if count:
            found[sample] = total / count, count
    return found


def check_edges(edges: Sequence[int], length: int) -> list[int]:
    """Bounds as the user gave them.

    Raises:
        UsageError: they do not rise from 0, or pass the length.
    """
    bounds = sorted({0, *edges})
    if bounds[-1] > length:
        raise UsageError(
            f"The bucket bound {bounds[-1]} lies beyond --length {length}.", "Make it longer."
        )
    return bounds if bounds[-1] == length else [*bounds, length]
