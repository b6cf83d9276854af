"""The random text that an export is compared on, and the ways to cut it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.modeling import pieces
from allmem_exporters.onnx.graph_runner import Cuts

SAMPLED_ROWS = 64


LONGEST = 4
"""Windows of up to so many times the shortest go round in the text."""


@dataclass(frozen=True, slots=True)
class SampleText:
    """Random tokens, the rows whose logits are compared, and ways to cut it."""

    tokens: list[int]
    rows: list[int]
    whole: Cuts
    random: Cuts


def draw(config: AllMemConfig, length: int | None, seed: int) -> SampleText:
    """A text.

    Args:
        config: of the model.
        length: of the text; None for one that is long enough for the window to go round.
        seed: of the tokens, the rows and the random cutting.
    """
    length = text_length(config, length)
    rng = np.random.default_rng(seed)
    text = rng.integers(0, config.vocab_size, length).tolist()
    rows = sorted({length - 1, *rng.integers(0, length, SAMPLED_ROWS).tolist()})
    return SampleText(
        text, rows, pieces(0, length, config.chunk), random_cuts(length, config.chunk, seed)
    )


def text_length(config: AllMemConfig, length: int | None) -> int:
    """The length that was asked for, or one that is long enough for windows to go round.

    Where heads have windows of their own, the longest may be far longer than the others.
    """
    window = min(config.window, LONGEST * config.shortest_window)
    return length or window + config.sinks + config.chunk // 2 + 1


def random_cuts(length: int, chunk: int, seed: int) -> list[tuple[int, int]]:
    """Pieces of 1 to ``chunk`` tokens, cut at chunk boundaries as well."""
    rng = np.random.default_rng(seed)
    edges, at = [0], 0
    while at < length:
        # Sizes are drawn evenly on a logarithmic scale, so that single tokens are common too.
        at += max(1, int(np.exp(rng.uniform(0, np.log(chunk + 1)))))
        at = min(at, length, (edges[-1] // chunk + 1) * chunk)
        edges.append(at)
    return list(zip(edges, edges[1:], strict=False))
