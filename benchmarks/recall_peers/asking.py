"""Put every prompt to every row of llama.cpp, and keep each answer as it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from allmem_runtime.evaluation.asking import SCORING
from allmem_runtime.evaluation.items import Item
from allmem_runtime.evaluation.results import Key, Record, Results
from allmem_runtime.evaluation.ruler_package import Task
from benchmarks.recall_peers.ours import Ours
from benchmarks.recall_peers.prompts import Prompts
from benchmarks.recall_peers.rows import Peer, Row


@dataclass(slots=True)
class Asking:
    """How llama.cpp is asked.

    Args:
        peer: that answers.
        prompts: writes them.
        tasks: by name; each scores its own answers.
        results: where they are kept.
        gguf: SHA-256 of the model's file.
        ours: how our rows were asked.
        say: told a line after each answer.
        over: whether the time is over; asked before each answer.
    """

    peer: Peer
    prompts: Prompts
    tasks: dict[str, Task]
    results: Results
    gguf: str
    ours: Ours
    say: Callable[[str], None]
    over: Callable[[], bool] = lambda: False

    def run(self, rows: Sequence[Row], items: Sequence[Item]) -> list[Record]:
        """The results of all rows, as far as the time goes; what is known is not asked again.

        All rows answer a prompt before the next one comes.

        Raises:
            Gone: llama.cpp cannot go on.
            UsageError: its vocabulary is another one.
            StorageError: an answer could not be kept.
        """
        records = []
        for item in items:
            for row in rows:
                known = self.results.get(self._key(row, item))
                if known is not None:
                    records.append({**known, **self._judged(item, known["answer"])})
        total, done = len(rows) * len(items), len(records)
        for item in items:
            wanted = [row for row in rows if self.results.get(self._key(row, item)) is None]
            if not wanted:
                continue
            ids = self.prompts.ids(item)
            if not self.over():
                self.prompts.check_names(self.peer, ids)
            for row in wanted:
                if self.over():
                    return records
                record = self._asked(row, item, ids)
                self.results.add(record)
                records.append(record)
                done += 1
                self.say(
                    f"[{done}/{total}] {row.name}: {item.task} {item.column} #{item.sample}: "
                    f"{record['score']:.0f}  (read {record['reading_seconds']:.1f} s, answered "
                    f"{record['answering_seconds']:.1f} s)"
                )
        return records

    def _key(self, row: Row, item: Item) -> Key:
        return (
            row.name, row.digest(self.gguf, self.peer.version), False, item.task, item.column,
            item.sample, 0, self.prompts.digest(item),
        )  # fmt: skip

    def _asked(self, row: Row, item: Item, ids: list[int]) -> Record:
        told = self.peer.tell(
            do="recall", ids=ids, ends=self.prompts.ends, most=item.questions[0].max_tokens,
            cache=row.cache.kind, size=row.size, keep=row.keep,
        )  # fmt: skip
        answer = self.prompts.text(told["answer"])
        name, model, reset, task, column, sample, question, prompt = self._key(row, item)
        return {
            "row": name, "model": model, "reset": reset, "task": task, "prompt": prompt,
            "column": column, "sample": sample, "question": question, "tokens": len(ids),
            "ids": hashlib.sha256(np.array(ids, "<i8").tobytes()).hexdigest(),
            "answer": answer, **self._judged(item, answer),
            "chat": self.ours.chat, "answer_prefix": self.ours.prefix_in, "seed": self.ours.seed,
            "benchmark": self.ours.benchmark, "version": self.peer.version,
            "cache": row.cache.kind, "context": row.size or None, "kept": row.keep,
            "cache_bytes": row.bytes(len(ids) + len(told["answer"])),
            "held": told["held"], "shifts": told["shifts"],
            "reading_seconds": round(told["reading_seconds"], 3),
            "answering_seconds": round(told["answering_seconds"], 3),
        }  # fmt: skip

    def _judged(self, item: Item, answer: str) -> Record:
        references = item.questions[0].references
        score = self.tasks[item.task].score(answer, references)
        return {"scoring": SCORING, "references": list(references), "score": score}
