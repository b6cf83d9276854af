"""Shards come back as they were written, appear only whole, and say what is wrong with them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data import Sequence, Shards, ShardWriter

LENGTHS = (5, 9, 2, 7)


def sequences(vocab_size: int = 100) -> list[Sequence]:
    random = np.random.default_rng(3)
    return [
        Sequence(
            ids=random.integers(0, vocab_size, length),
            counts=np.arange(length) % 2 == 1,
            kind="text" if number % 2 else "squad",
            split="heldout" if number == 2 else "train",
            source=f"book {number}",
        )
        for number, length in enumerate(LENGTHS)
    ]


def write(folder: Path, vocab_size: int = 100, **options: bool) -> Path:
    with ShardWriter(folder, vocab_size=vocab_size, tokenizer="t", **options) as writer:
        for sequence in sequences(vocab_size):
            writer.add(sequence)
    return folder


@pytest.mark.parametrize("vocab_size", [100, 70_000], ids=["two bytes", "four bytes"])
def test_sequences_come_back_as_written(tmp_path: Path, vocab_size: int) -> None:
    shards = Shards(write(tmp_path / "data", vocab_size), split=None, vocab_size=vocab_size)
    assert len(shards) == len(LENGTHS)
    for written, read in zip(sequences(vocab_size), shards, strict=True):
        assert read.ids.dtype == np.int64 and read.counts.dtype == bool
        np.testing.assert_array_equal(read.ids, written.ids)
        np.testing.assert_array_equal(read.counts, written.counts)
        assert (read.kind, read.split, read.source) == (written.kind, written.split, written.source)


def test_splits_and_kinds_are_told_apart(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    assert [s.source for s in Shards(folder)] == ["book 0", "book 1", "book 3"]
    assert [s.source for s in Shards(folder, split="heldout")] == ["book 2"]
    assert [s.source for s in Shards(folder, kinds=("text",))] == ["book 1", "book 3"]
    assert Counter(s.kind for s in Shards(folder)) == {"text": 2, "squad": 1}


def test_first_token_never_counts(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "data", vocab_size=9, tokenizer="t") as writer:
        writer.add(Sequence(np.array([1, 2, 3]), np.ones(3, bool), "text"))
    assert Shards(tmp_path / "data")[0].counts.tolist() == [False, True, True]


def test_a_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        ShardWriter(tmp_path / "data", vocab_size=100, tokenizer="t") as writer,
    ):
        writer.add(sequences()[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_existing_data_is_replaced_only_when_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    with pytest.raises(DataError, match="--force"):
        write(folder)
    write(folder, vocab_size=50, force=True)
    assert Shards(folder).index["vocab_size"] == 50
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_another_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds no training data"):
        write(tmp_path, force=True)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (Sequence(np.array([1, 100]), np.ones(2, bool), "k"), "vocabulary has 100"),
        (Sequence(np.array([1]), np.ones(1, bool), "k"), "1 tokens"),
        (Sequence(np.array([1, 2]), np.array([True, False]), "k"), "no token that counts"),
        (Sequence(np.array([1, 2]), np.ones(2, bool), "k", "test"), "split 'test'"),
    ],
    ids=["id too large", "too short", "nothing counts", "unknown split"],
)
def test_faulty_sequences_are_rejected(tmp_path: Path, sequence: Sequence, message: str) -> None:
    with (
        pytest.raises(DataError, match=message),
        ShardWriter(tmp_path / "data", vocab_size=100, tokenizer="t") as writer,
    ):
        writer.add(sequence)


def test_data_of_another_model_is_rejected(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    with pytest.raises(DataError, match="another tokenizer"):
        Shards(folder, tokenizer="u")
    with pytest.raises(DataError, match="vocabulary of 100, the model has 101"):
        Shards(folder, vocab_size=101)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    tokens = (folder / "tokens.bin").read_bytes()
    (folder / "tokens.bin").write_bytes(tokens[:-2])
    with pytest.raises(DataError, match=r"tokens\.bin has 44 bytes; its index says 46"):
        Shards(folder)
    (folder / "tokens.bin").write_bytes(tokens[:-1] + b"\x01")
    with pytest.raises(DataError, match=r"tokens\.bin is damaged"):
        Shards(folder)
    (folder / "tokens.bin").unlink()
    with pytest.raises(DataError, match=r"tokens\.bin is missing"):
        Shards(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "does not describe"),
        ({"version": 99}, "has version 99"),
        ({"tokens": "many"}, "no valid 'tokens'"),
        ({"token_type": "int8"}, "token_type is 'int8'"),
        ({"token_type": ["uint16"]}, "no valid 'token_type'"),
        ({"tokens": True}, "no valid 'tokens'"),
        ({"sequences": [{"start": 0}]}, "sequence 0 is not valid"),
        (
            {
                "sequences": [
                    {"start": 20, "length": 9, "kind": "a", "split": "train", "source": ""}
                ]
            },
            "outside the 23 tokens",
        ),
    ],
    ids=["format", "version", "tokens", "type", "list", "truth", "entry", "range"],
)
def test_a_wrong_index_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write(tmp_path / "data") / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        Shards(tmp_path / "data")


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json is missing"):
        Shards(tmp_path)


def test_token_that_is_none_of_the_vocabulary_is_named(tmp_path: Path) -> None:
    """Its digest is right: whoever wrote the tokens wrote the index too."""
    folder = write(tmp_path / "data")
    tokens = bytearray((folder / "tokens.bin").read_bytes())
    tokens[1::2] = b"\xff" * len(tokens[1::2])
    (folder / "tokens.bin").write_bytes(tokens)
    index = json.loads((folder / "index.json").read_text())
    index["sha256"]["tokens.bin"] = hashlib.sha256(tokens).hexdigest()
    (folder / "index.json").write_text(json.dumps(index))
    shards = Shards(folder)
    with pytest.raises(DataError, match=r"tokens\.bin holds the token 65\d+; .*below 100"):
        shards[0]


def test_index_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "data") / "index.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"index\.json cannot be read: it is nested too deeply"):
        Shards(tmp_path / "data")
