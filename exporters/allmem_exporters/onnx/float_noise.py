"""How far rounding alone carries a model on a text: PyTorch in float32 against PyTorch in float64.

Some decoders switch a few dimensions of the stream to values a hundred times the rest ("massive
activations", arXiv 2402.17762), and a token that stands on the edge of that switch makes 1e-4 out
of a difference of 1e-7, whoever computes it. SmolLM2-135M does so at a few tokens in a thousand
random ones. Two ways of computing cannot be compared there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from allmem_exporters.model.state import LayerState, blank_layer
from allmem_exporters.onnx.reference import Reference, read_layer


def relative_rms(value: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """RMS of the difference over RMS of the truth; 0 for two zeros."""
    error = _norm(np.subtract(value, truth, dtype=np.float64))
    if error == 0.0:
        return 0.0
    scale = _norm(truth.astype(np.float64))
    return error / scale if scale else math.inf


def _norm(values: NDArray[np.float64]) -> float:
    """Root of the sum of squares."""
    flat = values.reshape(-1)
    return math.sqrt(float(flat @ flat))


def float_noise(
    reference: Reference,
    text: Sequence[int],
    rows: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    enough: float = math.inf,
) -> float:
    """Relative RMS by which float32 is off float64, in the logits or the worst tensor of the state.

    Keys and values are kept as they come, so that what an export's cache rounds is not in it; int8
    stays int8.

    Args:
        reference: the model.
        text: ids of tokens.
        rows: which tokens want logits.
        progress: is told after each layer how many are done, of how many.
        enough: layers behind one with more than that are not read.
    """
    config = reference.config
    single = reference.embed(text)
    double = single.double()
    worst = 0.0
    for index in range(config.num_hidden_layers):
        layer = reference.layer(index)
        wide = blank_layer(config, index, dtype=torch.float64)
        narrow = LayerState(*(_single(tensor) for tensor in wide.tensors()))
        one = read_layer(layer, index, single, narrow)
        other = read_layer(layer.double(), index, double, wide)
        for found, truth in zip(one.state.tensors(), other.state.tensors(), strict=True):
            worst = max(worst, relative_rms(found.numpy(), truth.numpy()))
        single, double = one.after, other.after
        progress(index + 1, config.num_hidden_layers)
        if worst > enough:
            return worst
    single, double = (reference.last_norm(hidden)[0, list(rows)] for hidden in (single, double))
    difference = scale = 0.0
    for _, _, table in reference.table_pieces("head"):
        truth = reference.logits(double, table.double())
        difference += float((reference.logits(single, table) - truth).square().sum())
        scale += float(truth.square().sum())
    return max(worst, float(np.sqrt(difference / scale)))


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
