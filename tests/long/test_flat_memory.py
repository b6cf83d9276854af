"""A real model reads hundreds of thousands of tokens in the memory it began with."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from allmem_runtime import load

TOKENS = 300_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_resident_memory_stays_within_a_fixed_band(tiny_model_dir: Path) -> None:
    model = load(tiny_model_dir, device="cpu", threads=1)
    session = model.session(undo=False)
    draw = random.Random(3)
    vocabulary = model.manifest.backbone.vocab_size

    def tokens(count: int) -> Iterator[int]:
        return (draw.randrange(3, vocabulary) for _ in range(count))

    def pieces_of_all_lengths() -> None:
        for length in range(1, 2 * model.piece):
            session.feed(list(tokens(length)), draw.choice(["none", "last", "all"]))

    pieces_of_all_lengths()
    for _ in session.ingest(tokens(10_000), document=False):
        pass
    before = resident_bytes()

    for _ in session.ingest(tokens(TOKENS), document=False):
        pass
    pieces_of_all_lengths()

    # Thirty bytes kept per token would already be 9 MB.
    assert resident_bytes() - before < 6 << 20
    assert session.info()["failure"] == ""
