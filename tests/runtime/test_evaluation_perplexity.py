"""Perplexity by position: the losses, the buckets, the segments and a forgetting row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from allmem_runtime import Model, SourceError, UsageError, load
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.evaluation import perplexity
from allmem_runtime.evaluation.blank_memory import EvaluationSession, initial_weights
from allmem_runtime.evaluation.loading import Models
from allmem_runtime.evaluation.perplexity import (
    Perplexity,
    Segment,
    check_edges,
    edges_of,
    losses,
    segments,
)
from allmem_runtime.evaluation.results import Results
from allmem_runtime.evaluation.rows import grouped, parse_rows

CPU = EngineOptions(device="cpu", threads=1)

IDS = tuple(int(i) for i in np.random.default_rng(5).integers(3, 300, 90))


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", threads=1)


def expected(model: Model, ids: tuple[int, ...]) -> np.ndarray:
    """The losses token by token, by the definition."""
    session, found = model.session(undo=False), []
    for token, following in zip(ids, ids[1:], strict=False):
        logits = np.asarray(session.feed([token], logits="last"), np.float64)
        found.append(np.log(np.exp(logits).sum()) - logits[following])
    return np.array(found)


def test_losses_are_those_of_the_definition(tiny: Model) -> None:
    found = losses(EvaluationSession(tiny, undo=False), (), IDS, lambda at: None)
    # Pieces against single tokens: rounding of float32 and of the 16-bit keys and values.
    assert found == pytest.approx(expected(tiny, IDS), rel=1e-3)


def test_a_row_that_forgets_differs_from_the_step_on(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perplexity, "_FEED", 32)
    initial = initial_weights(tiny)
    kept = losses(EvaluationSession(tiny, undo=False), (), IDS, lambda at: None)
    forgot = losses(EvaluationSession(tiny, undo=False), (), IDS, lambda at: initial)
    assert np.array_equal(kept[:32], forgot[:32])
    assert np.abs(kept[32:] - forgot[32:]).max() > 1e-3


def test_buckets_are_steps_of_2k_to_8k_and_then_double() -> None:
    assert edges_of(40_000) == [0, 2048, 4096, 6144, 8192, 16384, 32768, 40_000]
    assert edges_of(1000) == [0, 1000]
    assert check_edges([64, 200], 400) == [0, 64, 200, 400]
    with pytest.raises(UsageError, match="beyond"):
        check_edges([800], 400)


def test_segments_cut_a_text_and_the_seed_chooses(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 95)
    encode = lambda text: list(range(len(text)))  # noqa: E731
    every = segments([path], encode, 20, 99, 0)
    assert [part.start for part in every] == [0, 20, 40, 60, 80]
    some = segments([path], encode, 20, 2, 0)
    assert some == segments([path], encode, 20, 2, 0) and len(some) == 2
    with pytest.raises(SourceError):
        segments([tmp_path / "none"], encode, 20, 2, 0)


def test_buckets_hold_every_token_but_the_first(tiny_model_dir: Path, tmp_path: Path) -> None:
    groups = grouped(parse_rows([f"a={tiny_model_dir}", f"b={tiny_model_dir}:reset"]))
    parts = [Segment(0, 0, IDS), Segment(0, 90, IDS[:50])]
    said: list[str] = []
    path = tmp_path / "r.jsonl"
    work = Perplexity(Models(CPU), Results(path), said.append, [0, 32, 90])
    records = work.run(groups, parts)
    model = load(tiny_model_dir, device="cpu", threads=1)
    right = expected(model, IDS)
    (low, n_low), (high, n_high) = records[0]["buckets"]
    assert (n_low, n_high) == (31, 58)
    assert low == pytest.approx(right[:31].sum(), rel=1e-3)  # as above
    assert high == pytest.approx(right[31:].sum(), rel=1e-3)
    nats, ratio, apart = work.tables(["a", "b"], records, ["a"])
    cell, whole = nats.cells["a", "0–90"], ratio.cells["a", "0–90"]
    assert cell is not None and whole is not None
    assert whole.value == pytest.approx(np.exp(cell.value))
    # Position 0 and no multiple of the step inside: the forgetting row forgets nothing here.
    assert apart.cells["b", "0–90"] is not None and apart.cells["b", "0–90"].value == 0.0
    again = Perplexity(Models(CPU), Results(path), said.append, [0, 32, 90])
    assert again.run(groups, parts) == records and len(said) == 4
