"""Taking the memory away: what goes, what stays, and that it is heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from allmem_runtime import Model, UsageError, load
from allmem_runtime.evaluation.blank_memory import EvaluationSession, initial_weights
from allmem_runtime.spec import past_name

IDS = [int(i) for i in np.random.default_rng(3).integers(3, 300, 45)]  # 2 chunks of 16 and a rest


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", threads=1)


def tensors(session: EvaluationSession) -> dict[str, np.ndarray]:
    state = session.model.manifest.state
    names = [past_name(layer, tensor.name) for layer, tensor in state]
    return {name: session._cursor.tensors.read(name).copy() for name in names}


def test_initial_weights_are_those_that_a_first_chunk_is_read_with(tiny: Model) -> None:
    session = EvaluationSession(tiny, undo=False)
    session.feed(IDS[:9])
    for name, values in initial_weights(tiny).items():
        assert np.any(values)
        assert np.array_equal(values, tensors(session)[name])


def test_forgetting_blanks_the_memory_and_nothing_else(tiny: Model) -> None:
    initial = initial_weights(tiny)
    session = EvaluationSession(tiny, undo=False)
    session.feed(IDS)
    before = tensors(session)
    session.forget_memory(initial)
    after = tensors(session)
    assert session.position == len(IDS)
    for name, values in after.items():
        part = name.rpartition(".")[2]
        if part in ("key", "value"):
            assert np.array_equal(values, before[name]), name
        elif part == "weights":
            assert np.array_equal(values, initial[name]), name
            assert not np.array_equal(values, before[name]), name
        else:
            assert not np.any(values), name
            assert np.any(before[name]), name


def test_what_is_read_next_sounds_different_without_the_memory(tiny: Model) -> None:
    kept = EvaluationSession(tiny, undo=False)
    kept.feed(IDS)
    forgot = kept.fork()
    forgot.forget_memory(initial_weights(tiny))
    a, b = kept.feed([7], logits="last"), forgot.feed([7], logits="last")
    assert a is not None and b is not None
    # The tiny model's memory is loud: any difference above rounding shows that it was heard.
    assert float(np.abs(a - b).max()) > 1e-3


def test_forgetting_at_the_very_beginning_changes_nothing(tiny: Model) -> None:
    session, fresh = EvaluationSession(tiny, undo=False), EvaluationSession(tiny, undo=False)
    session.forget_memory(initial_weights(tiny))
    assert np.array_equal(
        np.asarray(session.feed(IDS, logits="last")), np.asarray(fresh.feed(IDS, logits="last"))
    )


def test_a_model_that_writes_at_every_token_is_refused(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    single = dataclasses.replace(tiny.manifest, chunk=1)
    session = EvaluationSession(tiny, undo=False)
    monkeypatch.setattr(type(tiny), "manifest", single)
    with pytest.raises(UsageError, match="every token"):
        session.initial_weights()
