"""How far rounding alone carries a model on a text: PyTorch in float32 against PyTorch in float64.

Some decoders switch a few dimensions of the stream to values a hundred times the rest ("massive
activations", arXiv 2402.17762), and a token that stands on the edge of that switch makes 1e-4 out
of a difference of 1e-7, whoever computes it. SmolLM2-135M does so at a few tokens in a thousand
random ones. Two ways of computing cannot be compared there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.state import AllMemState


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text leaves: logits [rows, vocab_size] and the tensors of the state."""

    logits: NDArray[np.floating]
    state: list[NDArray[np.floating]]

    def apart(self, truth: Reading) -> list[float]:
        """Relative RMS differences: of the logits, then of each tensor of the state."""
        pairs = zip(self.state, truth.state, strict=True)
        return [relative_rms(self.logits, truth.logits), *(relative_rms(a, b) for a, b in pairs)]


def relative_rms(value: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """RMS of the difference over RMS of the truth; 0 for two zeros."""
    difference = value.astype(np.float64) - truth.astype(np.float64)
    scale = float(np.sqrt(np.mean(np.square(truth, dtype=np.float64)))) if truth.size else 0.0
    error = float(np.sqrt(np.mean(np.square(difference)))) if truth.size else 0.0
    if error == 0.0:
        return 0.0
    return error / scale if scale else float("inf")


def read_text(
    model: AllMemForCausalLM, text: Sequence[int], rows: Sequence[int], state: AllMemState
) -> Reading:
    """Read a text from a blank state.

    Args:
        model: in any floating type.
        text: ids of tokens.
        rows: which tokens want logits.
        state: blank; its types say how keys and values are kept.
    """
    with torch.inference_mode():
        found = model(torch.tensor([text]), state, logit_index=list(rows))
    return Reading(found.logits[0].numpy(), [tensor.numpy() for tensor in found.state])


def float_noise(model: AllMemForCausalLM, text: Sequence[int], rows: Sequence[int]) -> float:
    """Relative RMS by which float32 is off float64, in the logits or the worst tensor of the state.

    Keys and values are kept as they come, so that what an export's cache rounds is not in it; int8
    stays int8.

    Args:
        model: in float32; in float64 meanwhile.
        text: ids of tokens.
        rows: which tokens want logits.
    """
    wide = AllMemState.blank(model.config, dtype=torch.float64)
    narrow = AllMemState.from_tensors(
        [tensor.float() if tensor.is_floating_point() else tensor for tensor in wide]
    )
    single = read_text(model, text, rows, narrow)
    try:
        double = read_text(model.double(), text, rows, wide)
    finally:
        model.float()
    return max(single.apart(double))
