"""Two hundred thousand tokens through the tiny model: memory, finiteness, bounded fast weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from allmem_runtime import load
from allmem_runtime.spec import past_name

pytestmark = pytest.mark.long

GROWTH_MIB = 5.0
TOKENS = 200_000


def resident_mib() -> float:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system does not tell resident memory in /proc")
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("operators", ["native", "portable"])
def test_memory_stays_flat_and_the_state_finite(tiny_model_dir: Path, operators: str) -> None:
    model = load(tiny_model_dir, operators=operators)
    session = model.session()
    text = np.random.default_rng(0).integers(3, 320, TOKENS).tolist()
    session.feed(text[:10_000])
    before = resident_mib()
    largest = 0.0
    for start in range(10_000, TOKENS, 10_000):
        session.feed(text[start : start + 10_000])
        largest = max(largest, resident_mib())
    assert session.position == TOKENS
    assert largest - before < GROWTH_MIB
    tensors = session._cursor.tensors
    for layer, tensor in model.manifest.state:
        array = tensors.read(past_name(layer, tensor.name))
        assert np.isfinite(array).all(), (layer, tensor.name)


def test_fast_weights_stay_bounded(tiny_model_dir: Path) -> None:
    # Rows are renormalised before each update and updates are clipped to a tenth of the initial
    # norm, so with momentum below 1 no row can grow without end.
    model = load(tiny_model_dir)
    session = model.session()
    text = np.random.default_rng(1).integers(3, 320, 50_000).tolist()
    norms = []
    for start in range(0, len(text), 5_000):
        session.feed(text[start : start + 5_000])
        weights = session._cursor.tensors.read(past_name(0, "weights"))
        norms.append(float(np.linalg.norm(weights)))
    assert max(norms[2:]) < 1.5 * min(norms[2:])
