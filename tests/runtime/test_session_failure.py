"""A session that failed goes back or begins anew; it never goes on half changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runtime.during_step import during_step
from session_tools import DOCUMENT, SHORT, assert_same, read

from allmem_runtime import Model, Session, SessionStateError
from allmem_runtime.engine import engine as step
from allmem_runtime.engine.buffers import Logits
from allmem_runtime.engine.engine import Engine


def failing() -> None:
    raise SessionStateError("The step failed.")


def test_error_of_the_graph_is_a_session_error(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy.engine
    monkeypatch.setattr(step, "check_piece", lambda *_: None)  # the toy finds it too
    with pytest.raises(SessionStateError, match="step at position 40 failed: .*out of data bounds"):
        engine.run(engine.buffers(), np.zeros(20, np.int64), 40, np.zeros(0, np.int64))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda s: s.ask("Who?"), id="ask"),
        pytest.param(lambda s: read(s, "text"), id="ingest"),
        pytest.param(lambda s: s.feed([3]), id="feed"),
        pytest.param(lambda s: list(s.logits_all([3])), id="logits_all"),
        pytest.param(lambda s: list(s.generate("a")), id="generate"),
        pytest.param(lambda s: s.fork(), id="fork"),
        pytest.param(lambda s: s.checkpoint(), id="checkpoint"),
        pytest.param(lambda s: s.save("never.allmem"), id="save"),
    ],
)
def test_failed_session_allows_only_going_back(
    toy: Model, monkeypatch: pytest.MonkeyPatch, call: Callable[[Session], object]
) -> None:
    session = toy.session()
    with monkeypatch.context() as patch:
        during_step(patch, 0, failing)
        with pytest.raises(SessionStateError, match="The step failed"):
            session.feed([3])

    with pytest.raises(SessionStateError, match="This session failed") as caught:
        call(session)
    assert "rollback()" in caught.value.hint
    assert not Path("never.allmem").exists()
    assert session.info()["failure"]


@pytest.mark.parametrize("step", [0, 1, 3])
def test_failed_answer_can_be_rolled_back(
    toy: Model, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    session = read(toy.session(), DOCUMENT)
    expected = session.fork()
    with monkeypatch.context() as patch:
        during_step(patch, step, failing)
        with pytest.raises(SessionStateError):
            session.ask("Who?")

    session.rollback()

    assert_same(session, expected)
    assert session.ask("Who?", sampling=SHORT) == expected.ask("Who?", sampling=SHORT)


def test_failed_session_can_be_reset(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = toy.session()
    with monkeypatch.context() as patch:
        during_step(patch, 2, failing)
        with pytest.raises(SessionStateError):
            read(session, DOCUMENT)

    session.reset()

    assert_same(read(session, DOCUMENT), read(toy.session(), DOCUMENT))


def test_failed_session_leaves_others_alone(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = toy.session(), toy.session()
    with monkeypatch.context() as patch:
        during_step(patch, 0, failing)
        with pytest.raises(SessionStateError):
            bad.feed([3])

    assert_same(read(good, DOCUMENT), read(toy.session(), DOCUMENT))


def test_memory_that_is_not_finite_ends_the_reading(toy: Model) -> None:
    session = toy.session()
    weights = session._cursor.tensors.read("past.1.momentum")
    weights[0, 0, 0, 0, 0] = np.nan

    with pytest.raises(SessionStateError, match=r"past\.1\.momentum holds a value"):
        session._cursor.check_memory()
    with pytest.raises(SessionStateError, match="This session failed"):
        session.ask("Who?")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_end_the_answer(
    toy: Model, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    run = Engine.run

    def spoiled(*args: object) -> Logits:
        logits = run(*args)  # type: ignore[arg-type]
        logits[..., 3] = bad
        return logits

    session = toy.session()
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "run", spoiled)
        with pytest.raises(SessionStateError, match="logits at position .* are not finite"):
            session.ask("Who?")
    with pytest.raises(SessionStateError, match="This session failed"):
        session.ask("Who?")
