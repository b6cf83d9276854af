"""Work on CUDA is done in one thread, in order, and is over before anybody hears of a signal."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from allmem_runtime.engine.device_thread import OwnThread, device_thread


class Interruption(BaseException):
    """What a signal handler raises."""


def test_work_of_all_threads_is_done_in_one() -> None:
    worker, seen = OwnThread(), []
    threads = [
        threading.Thread(target=lambda: seen.append(worker.do(threading.get_ident)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 5 and len(set(seen)) == 1
    assert seen[0] not in {thread.ident for thread in [*threads, threading.current_thread()]}


def test_work_may_ask_for_more_work() -> None:
    worker = OwnThread()

    assert worker.do(lambda: worker.do(lambda: worker.do(lambda: 7))) == 7


def test_error_of_the_work_is_the_callers() -> None:
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        OwnThread().do(fails)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of the system")
def test_signal_is_heard_after_the_work_and_not_within_it() -> None:
    done: list[int] = []

    def work() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.3)
        done.append(1)

    def handler(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Interruption):
            OwnThread().do(work)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert done


def test_cpu_work_stays_in_the_callers_thread_and_cuda_has_one_thread_for_all() -> None:
    assert device_thread("cpu").do(threading.get_ident) == threading.get_ident()
    assert device_thread("cuda") is device_thread("cuda")
