"""A session serves one caller at a time and says so; sessions of one model run side by side."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
    try:
        with pytest.raises(SessionStateError, match=r"busy: a question .* work on a fork"):
            session.ask("Who?")
    finally:
        leave.set()
        thread.join()

    assert answers == [toy.session().ask("Who?", sampling=SHORT)]


def test_what_copies_the_state_waits_for_the_step_of_another_thread(
    toy: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = toy.session()
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        leave.wait(30)

    during_step(monkeypatch, 0, wait)
    ids = list(range(3, 9))
    feeding = threading.Thread(target=lambda: session.feed(ids))
    feeding.start()
    assert inside.wait(30)
    with ThreadPoolExecutor(3) as pool:
        fork = pool.submit(session.fork)
        saved = pool.submit(session.save, tmp_path / "s.allmem")
        kept = pool.submit(session.checkpoint)
        assert not any(copy.done() for copy in (fork, saved, kept))
        leave.set()
        assert (saved.result(30), kept.result(30)) == (None, None)
    feeding.join()

    assert_same(fork.result(), session)
    assert_same(toy.open(tmp_path / "s.allmem"), session)


def test_a_call_from_within_a_call_is_refused_instead_of_waiting_for_itself(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = toy.session()
    during_step(monkeypatch, 0, lambda: session.fork() and None)  # as a signal handler could

    with pytest.raises(SessionStateError, match="in the middle of a call"):
        session.feed([3, 4])


@pytest.mark.parametrize("text", [False, True], ids=["state alone", "with its text"])
def test_threads_fork_a_session_that_reads_and_each_fork_is_whole(
    toy: Model, text: bool, switching: None
) -> None:
    data = DOCUMENT.encode() * 2
    session, forks = toy.session(text=text), list[Session]()
    done = threading.Event()

    def fork() -> None:
        for _ in range(12):
            forks.append(session.fork())
            done.wait(0.002)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(fork) for _ in range(4)]
        for _ in session.ingest(data, name="a.txt"):
            pass
        for thread in running:
            thread.result(60)

    assert len(forks) == 48
    assert len({fork.position for fork in forks}) > 2  # not all before, not all after the reading
    for fork in forks[::3]:
        if fork.position or fork.pending:
            begun = fork.source_offset > 0
            fork.drop_unread()
            if not fork.source.finished:
                read(fork, data[fork.source_offset :], name="a.txt")
            fork.feed([])
            assert fork.text_failure == ""
            if not begun:  # a text begun by the fork itself has a digest of its own
                assert bool(fork._cursor.place.text) == text
                fork._cursor.place.text = session._cursor.place.text
            assert_same(fork, session)


def test_threads_ask_one_session_and_each_gets_its_answer(toy: Model, switching: None) -> None:
    session = read(toy.session(text=True), f"Zebras: two.\n\n{DOCUMENT}")
    expected = session.answer("How many zebras?", passages=1, sampling=SHORT)
    with ThreadPoolExecutor(4) as pool:
        answers = [
            pool.submit(lambda: session.answer("How many zebras?", passages=1, sampling=SHORT))
            for _ in range(16)
        ]
        given = [(answer.result(60).text, answer.result().passages) for answer in answers]

    assert expected.passages
    assert given == [(expected.text, expected.passages)] * 16


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns far more often than they do by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


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
