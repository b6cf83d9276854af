"""The usual way that passages are measured against: its chunks, its vectors, its counts."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from allmem_runtime.errors import UsageError
from benchmarks.passages import usual_way
from benchmarks.passages.fact_files import GivenFact
from benchmarks.passages.kept_answers import KeptAnswers
from benchmarks.passages.usual_parts import CHUNK, OVERLAP, Embedder, chunks, nearest

TEXT = "".join(f"Sentence {n} tells of mill {n} and its wheel. " for n in range(200))


@pytest.mark.parametrize("text", [TEXT, "x" * 2000, "short", ""])
def test_chunks_cover_the_text_and_share_their_ends(text: str) -> None:
    cut = chunks(text)
    for start, part in cut:
        assert text[start:].startswith(part)
        assert len(part) <= CHUNK
    for (start, part), (following, _) in zip(cut, cut[1:], strict=False):
        assert following == start + len(part) - OVERLAP
    assert not cut or cut[-1][0] + len(cut[-1][1]) == len(text)


def test_the_nearest_vectors_come_first() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
    assert nearest(vectors, np.array([0.0, 1.0], np.float32), 2) == [1, 2]


def test_a_package_without_weights_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(UsageError, match="model.safetensors"):
        Embedder(tmp_path / "model.zip", tmp_path / "out", 1)


def letters(texts: Sequence[str]) -> np.ndarray:
    """Stands for an embedding model: how often digits occur."""
    rows = np.array([[text.count(str(digit)) for digit in range(10)] for text in texts], np.float32)
    return rows / np.maximum(1e-9, np.linalg.norm(rows, axis=1, keepdims=True))


def test_facts_are_asked_with_their_chunks_and_counted(tmp_path: Path) -> None:
    fact = GivenFact("prose", "Door 77777 opens with 31.", "What opens door 77777?", ("31",))
    text = TEXT[:4000] + fact.text + TEXT[4000:]
    cut = chunks(text)
    prompts = []

    def answer(prompt: str, most: int) -> str:
        prompts.append(prompt)
        return "It is 31." if fact.text in prompt else "It is 310."

    kept = KeptAnswers(tmp_path / "kept.jsonl", {})
    vectors = letters([part for _, part in cut])
    options = argparse.Namespace(chunks=3, max_tokens=4)
    usual_way.ask([fact], text, cut, vectors, letters, answer, kept, options)

    record = kept[fact.question]
    assert (record["found"], record["right"]) == (True, True)
    assert prompts[-1].endswith("Question: What opens door 77777?")
    rows = usual_way.summary([record, {**record, "right": False}])["rows"]
    assert (rows["all"]["facts"], rows["all"]["right"]["mean"]) == (2, 0.5)
    results = usual_way.summary([record]) | {"embedding_seconds": 1.0, "keeping_seconds": 0.1}
    assert "| all | 1 | 100.0 ± 0.0 % |" in usual_way.told(results)
