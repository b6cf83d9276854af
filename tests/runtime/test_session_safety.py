"""Failure, threads, interrupts and cancelling never leave a session half changed."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from session_tools import DOCUMENT, assert_same, fed_tokens, read, state

from allmem_runtime import Model, Sampling, Session, SessionStateError, UsageError
from allmem_runtime.engine import step
from allmem_runtime.engine.buffers import DeviceBuffers, Ids, Logits
from allmem_runtime.engine.step import Engine

SHORT = Sampling(max_tokens=5)
Run = Callable[..., Logits]


def during_step(
    monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None], after: bool = False
) -> None:
    """Do something in the given step, counted from now; once."""
    run, count = Engine.run, iter(range(1 << 30))

    def wrapped(self: Engine, buffers: DeviceBuffers, ids: Ids, position: int, rows: Ids) -> Logits:
        due = next(count) == number
        if due and not after:
            act()
        logits = run(self, buffers, ids, position, rows)
        if due and after:
            act()
        return logits

    monkeypatch.setattr(Engine, "run", wrapped)


def failing() -> None:
    raise SessionStateError("The step failed.")


# Failure --------------------------------------------------------------------------------------


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


# Threads --------------------------------------------------------------------------------------


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
    inside.wait(30)
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


# Cancelling and interrupts --------------------------------------------------------------------


def test_cancelled_reading_ends_after_the_piece_and_can_go_on(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = toy.session()
    steps: list[int] = []
    with monkeypatch.context() as patch:
        during_step(patch, 3, session.cancel)
        for progress in session.ingest(DOCUMENT):
            steps.append(progress.position)

    assert steps[-1] == 4 * toy.piece
    assert not session.source.finished

    read(session, DOCUMENT.encode()[session.source_offset :])
    assert_same(session, read(toy.session(), DOCUMENT))


def test_cancelled_answer_ends_after_the_token(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = read(toy.session(), DOCUMENT)
    full = session.fork().ask("Who?", sampling=Sampling(max_tokens=50))
    during_step(monkeypatch, 4, session.cancel)

    text = session.ask("Who?", sampling=Sampling(max_tokens=50))

    assert session.finish_reason == "cancelled"
    assert full.startswith(text.rstrip("\ufffd"))
    assert len(text) < len(full)


def test_cancel_is_forgotten_when_the_next_call_starts(toy: Model) -> None:
    session = toy.session()
    session.cancel()

    read(session, DOCUMENT)

    assert session.source.finished


def test_cancelling_from_another_thread_is_quick(toy: Model) -> None:
    session = toy.session()
    endless: Iterator[str] = iter(lambda: "word after word ", None)
    stopped: list[float] = []

    def cancel() -> None:
        session.cancel()
        stopped.append(time.perf_counter())

    timer = threading.Timer(0.2, cancel)
    timer.start()
    read(session, endless)

    assert time.perf_counter() - stopped[0] < 1.0  # a piece of the toy takes about a millisecond
    assert session.position > 0


@pytest.mark.parametrize("after", [False, True], ids=["before the step", "after the step"])
def test_interrupt_waits_for_the_step_and_reading_can_go_on(
    toy: Model, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    session = toy.session()
    with monkeypatch.context() as patch:
        during_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT), after)
        with pytest.raises(KeyboardInterrupt):
            read(session, DOCUMENT)

    assert session.position == 3 * toy.piece
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    read(session, DOCUMENT.encode()[session.source_offset :])
    assert_same(session, read(toy.session(), DOCUMENT))


def test_handler_of_the_program_is_left_alone(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = toy.session()
    previous = signal.signal(signal.SIGINT, lambda *_: session.cancel())
    try:
        during_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        read(session, DOCUMENT)
    finally:
        signal.signal(signal.SIGINT, previous)

    assert session.position == 3 * toy.piece


# Memory ---------------------------------------------------------------------------------------


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


on_linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@on_linux
def test_thousand_sessions_leave_nothing_behind(toy: Model) -> None:
    def use() -> None:
        session = toy.session()
        session.feed([3, 4, 5])
        session.checkpoint()
        session.fork().ask("?", sampling=Sampling(max_tokens=1))

    for _ in range(100):
        use()
    gc.collect()
    before = resident_bytes()
    for _ in range(1000):
        use()
    gc.collect()

    # A leak of the tensors of one session each would be 14 MB; allocators drift by less than 4.
    assert resident_bytes() - before < 4 << 20


@on_linux
def test_memory_does_not_grow_with_the_text(toy: Model) -> None:
    session = toy.session()
    read(session, DOCUMENT * 4)
    before = resident_bytes()

    read(session, (DOCUMENT for _ in range(100)))

    assert session.position > 100_000
    # Anything kept per token, be it one number, would be near a megabyte.
    assert resident_bytes() - before < 4 << 20


def test_session_tells_its_constant_size(toy: Model) -> None:
    session = toy.session()
    first = session.info()
    read(session, DOCUMENT)

    assert session.info()["state_bytes"] == first["state_bytes"] == toy.state_bytes
    assert session.info()["memory_bytes"] == first["memory_bytes"]


# Low level ------------------------------------------------------------------------------------


def test_logits_of_all_tokens_hold_those_of_the_last(toy: Model) -> None:
    ids = [3 + i % 300 for i in range(130)]
    every = toy.session().feed(ids, "all")
    last = toy.session().feed(ids, "last")
    assert every is not None and last is not None

    assert every.shape == (130, toy.manifest.backbone.vocab_size)
    np.testing.assert_array_equal(every[-1], last)
    single = toy.session()
    for token, row in zip(ids, every, strict=True):
        np.testing.assert_array_equal(single.feed([token], "last"), row)


def test_waiting_tokens_get_no_rows(toy: Model) -> None:
    session = toy.session()
    for _ in session.ingest(DOCUMENT):
        break
    assert session.pending

    rows = list(session.logits_all([3, 4]))

    assert sum(len(r) for r in rows) == 2


def test_fed_logits_stay_what_they_were(toy: Model) -> None:
    session = toy.session()
    first = session.feed([3], "last")
    assert first is not None
    kept = first.copy()
    session.feed([4], "last")

    np.testing.assert_array_equal(first, kept)


def test_feeding_adds_nothing(toy: Model) -> None:
    with fed_tokens() as tokens:
        assert toy.session().feed(np.array([7, 8])) is None

    assert tokens == [7, 8]


@pytest.mark.parametrize(
    ("ids", "logits", "message"),
    [
        ([330], "none", "330 is no token"),
        ([-1], "none", "-1 is no token"),
        ([1.5], "none", "no whole number"),
        (["a"], "none", "no whole number"),
        ([], "last", "no token to give logits of"),
        ([], "all", "no token to give logits of"),
        ([3], "some", "logits is 'some'"),
    ],
)
def test_what_cannot_be_fed_is_refused_and_changes_nothing(
    toy: Model, ids: list[int], logits: str, message: str
) -> None:
    session = toy.session()
    with pytest.raises(UsageError, match=message):
        session.feed(ids, logits)  # type: ignore[arg-type]
    assert_same(session, toy.session())
