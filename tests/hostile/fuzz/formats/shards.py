"""Training data: shards and their index, as `allmem finetune` and `allmem heads` read them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random

import numpy as np
from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.mutate_bytes import mutated_bytes
from hostile.fuzz.mutate_json import mutated_json_bytes

from allmem_exporters.finetune.data.sequence import HELDOUT, TRAIN, Sequence
from allmem_exporters.finetune.data.shard_format import COUNTS_FILE, INDEX_FILE, TOKENS_FILE
from allmem_exporters.finetune.data.shard_writer import ShardWriter
from allmem_exporters.finetune.data.shards import Shards

_VOCAB = 320


def _make(folder: Path) -> None:
    draw = np.random.default_rng(0)
    with ShardWriter(folder / "data", vocab_size=_VOCAB, tokenizer="a" * 64) as writer:
        for number in range(12):
            ids = draw.integers(0, _VOCAB, 64, dtype=np.int64)
            split = HELDOUT if number % 3 == 0 else TRAIN
            writer.add(Sequence(ids, ids % 2 == 0, "text", split, f"source {number}"))


def _mutate(files: Files, draw: Random) -> Files:
    index = f"data/{INDEX_FILE}"
    if draw.random() < 0.6:
        return {index: mutated_json_bytes(files[index], draw)}
    name = draw.choice((TOKENS_FILE, COUNTS_FILE))
    data = mutated_bytes(files[f"data/{name}"], draw)
    known = json.loads(files[index])
    known["sha256"][name] = hashlib.sha256(data).hexdigest()
    return {f"data/{name}": data, index: json.dumps(known).encode()}


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        for split in (TRAIN, None):
            shards = Shards(folder / "data", split=split, vocab_size=_VOCAB, tokenizer="a" * 64)
            for number in range(len(shards)):
                sequence = shards[number]
                assert len(sequence.ids) == len(sequence.counts) >= 2
                # An embedding is indexed by them.
                assert 0 <= sequence.ids.min() <= sequence.ids.max() < _VOCAB

    return read


FORMAT = Format("shards", _make, _mutate, _reader)
