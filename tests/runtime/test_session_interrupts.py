"""Cancelling and interrupts end a call between two steps, and the session can go on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
from runtime.during_step import during_step
from session_tools import DOCUMENT, assert_same, read

from allmem_runtime import Model, Sampling


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
    stopped: list[float] = []

    def cancel() -> None:
        session.cancel()
        stopped.append(time.perf_counter())

    def endless() -> Iterator[str]:
        threading.Timer(0.2, cancel).start()  # not before: a call forgets what was asked earlier
        while True:
            yield "word after word "

    read(session, endless())

    # A piece of the toy takes about a millisecond; a busy machine may take its time.
    assert time.perf_counter() - stopped[0] < 5.0
    assert session.position > 0


@pytest.mark.parametrize("after", [False, True], ids=["before the step", "after the step"])
def test_interrupt_waits_for_the_step_and_reading_can_go_on(
    toy: Model, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    session = toy.session()
    with monkeypatch.context() as patch:
        during_step(patch, 2, lambda: signal.raise_signal(signal.SIGINT), after)
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
        during_step(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
        read(session, DOCUMENT)
    finally:
        signal.signal(signal.SIGINT, previous)

    assert session.position == 3 * toy.piece
