"""Sessions leave no memory behind, and theirs does not grow with the text."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from session_tools import DOCUMENT, read

from allmem_runtime import Model, Sampling, load


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
def test_forks_that_were_let_go_give_their_memory_back(make_toy: Callable[..., Path]) -> None:
    model = load(make_toy(window=1 << 15), device="cpu", operators="portable", threads=1)
    session = model.session()
    session.feed([3, 4, 5])
    session.fork().checkpoint()  # what only the first fork takes
    before = resident_bytes()
    forks = [session.fork() for _ in range(20)]
    for fork in forks[::2]:
        fork.checkpoint()
    taken = resident_bytes() - before
    kept = forks[7]  # between those that go
    del forks, fork
    gc.collect()
    held = resident_bytes() - before

    assert taken > 25 * model.state_bytes
    assert held < 6 * model.state_bytes, (held, taken)
    assert kept.position == 3


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
