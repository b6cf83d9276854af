"""How far an export in integers, read token by token, is from itself read in whole chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from allmem_exporters import AllMemConfig
from allmem_exporters.model.modeling import pieces
from allmem_exporters.model.state import state_spec
from allmem_exporters.onnx.float_noise import relative_rms
from allmem_exporters.onnx.graph_runner import GraphRunner

LARGEST = 5e-3
"""Inputs are rounded token by token, so cuts change nothing but the order of sums, by 1e-7; an
input that this moves across the middle of two of its 255 levels makes 1e-3 of the logits."""


def token_by_token_error(folder: Path, checkpoint: Path, length: int) -> float:
    """Relative RMS of the logits of ``length`` random tokens."""
    config = AllMemConfig.from_pretrained(checkpoint)
    text = np.random.default_rng(1).integers(0, config.vocab_size, length).tolist()
    runner = GraphRunner(folder, state_spec(config), native=True)
    whole, _ = runner.read(text, pieces(0, length, config.chunk), range(length))
    single, _ = runner.read(text, [(i, i + 1) for i in range(length)], range(length))
    return relative_rms(single, whole)
