"""A session serves one caller at a time and says so; sessions of one model run side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runtime.during_step import during_step
from session_tools import DOCUMENT, SHORT, assert_same, read, state

from allmem_runtime import Model, Session, SessionStateError


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda s: s.ask("Who?"), id="ask"),
        pytest.param(lambda s: read(s, "text"), id="ingest"),
        pytest.param(lambda s: s.feed([3]), id="feed"),
        pytest.param(lambda s: s.reset(), id="reset"),
        pytest.param(lambda s: s.rollback(), id="rollback"),
        pytest.param(lambda s: s.undo(), id="undo"),
    ],
)
def test_open_reading_keeps_others_from_moving_the_state(
    toy: Model, call: Callable[[Session], object]
) -> None:
    session = toy.session()
    session.ask("Who?", sampling=SHORT)  # so that there is something to undo
    session.checkpoint()
    expected = session.fork()
    reading = session.ingest(DOCUMENT)
    next(reading)

    with pytest.raises(SessionStateError, match="busy: a source is being read"):
        call(session)

    for _ in reading:
        pass
    assert_same(session, read(expected, DOCUMENT))


def test_reading_that_was_closed_keeps_nobody_out(toy: Model) -> None:
    session = toy.session()
    reading = session.ingest(DOCUMENT)
    next(reading)
    reading.close()

    assert session.ask("Who?", sampling=SHORT) is not None


def test_reading_may_be_saved_forked_and_kept_while_it_goes_on(toy: Model, tmp_path: Path) -> None:
    session = toy.session()
    forks = []
    for number, _ in enumerate(session.ingest(DOCUMENT)):
        if number in (3, 7):
            session.save(tmp_path / f"{number}.allmem")
            session.checkpoint()
            forks.append(session.fork())

    assert_same(session, read(toy.session(), DOCUMENT))
    assert_same(toy.open(tmp_path / "7.allmem"), forks[1])
    session.rollback()
    assert_same(session, forks[1])


def test_second_thread_is_told_that_the_session_is_busy(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = toy.session()
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        leave.wait(30)

    during_step(monkeypatch, 0, wait)
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(session.ask("Who?", sampling=SHORT)))
    thread.start()
    assert inside.wait(30)
    calls: list[Callable[[], object]] = [
        lambda: session.ask("Who?"),
        lambda: session.save("never.allmem"),
        lambda: session.fork(),
    ]
    try:
        for call in calls:
            with pytest.raises(SessionStateError, match="busy"):
                call()
    finally:
        leave.set()
        thread.join()

    assert answers == [toy.session().ask("Who?", sampling=SHORT)]


def test_sessions_of_one_model_run_in_parallel(toy: Model) -> None:
    expected = state(read(toy.session(), DOCUMENT))
    results: list[dict[str, np.ndarray]] = []
    threads = [
        threading.Thread(target=lambda: results.append(state(read(toy.session(), DOCUMENT))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 4
    for result in results:
        for name, values in expected.items():
            assert (result[name] == values).all(), name
