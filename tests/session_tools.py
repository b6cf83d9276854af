"""What the tests of sessions look at: the state to the last bit, and the tokens that were fed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from allmem_runtime import Sampling, Session
from allmem_runtime.engine.buffers import DeviceBuffers, Ids, Logits
from allmem_runtime.engine.engine import Engine
from allmem_runtime.spec import past_name

DOCUMENT = (
    "The key of the boathouse hangs in the hall, behind the clock. Über den Flüssen, 東京 👩‍🚀.\n"
    "Nobody had been there since May; the oars were gone, and so was the dog.\n"
) * 40
SHORT = Sampling(max_tokens=5)


def state(session: Session) -> dict[str, np.ndarray]:
    """Every tensor of the state."""
    tensors = session._cursor.tensors
    names = [past_name(layer, t.name) for layer, t in session.model.manifest.state]
    return {name: tensors.read(name).copy() for name in names}


def assert_same(first: Session, second: Session) -> None:
    """Same place, same tensors, to the last bit."""
    a, b = first._cursor.place.copy(), second._cursor.place.copy()
    a.seed = b.seed = 0
    a.parent = b.parent = ""
    pairs = {f.name: (getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    assert not differing, differing
    for name, values in state(first).items():
        np.testing.assert_array_equal(values, state(second)[name], err_msg=name, strict=True)


def read(session: Session, source: object, **options: object) -> Session:
    """Read a source to its end."""
    for _ in session.ingest(source, **options):  # type: ignore[arg-type]
        pass
    return session


@contextmanager
def fed_tokens() -> Iterator[list[int]]:
    """Collects the tokens of every step."""
    tokens: list[int] = []
    run = Engine.run

    def recording(
        self: Engine, buffers: DeviceBuffers, ids: Ids, position: int, rows: Ids
    ) -> Logits:
        tokens.extend(ids.tolist())
        return run(self, buffers, ids, position, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "run", recording)
        yield tokens
