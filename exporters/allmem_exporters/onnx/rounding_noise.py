"""How far rounding the inputs of products to eight bits carries a model on a text, in PyTorch.

Some tokens of a random text stand on the edge of a switch to values a hundred times the rest, see
`float_noise`. Rounding to eight bits throws some of them over it, whoever rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.packing import packed_layer
from allmem_exporters.model.state import blank_layer
from allmem_exporters.onnx.float_noise import relative_rms
from allmem_exporters.onnx.reference import LayerReading, Reference, read_layer
from allmem_exporters.quantization.blocks import divisor, in_blocks

_LEVELS = 127


def rounding_noise(
    reference: Reference,
    text: Sequence[int],
    reading: LayerReading,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Relative RMS by which a layer's worst state is off where all layers up to it round.

    Args:
        reference: the model.
        text: ids of tokens.
        reading: what the layer makes of the text where none rounds.
        progress: is told after each layer how many are done, of how many.
    """
    hidden = reference.embed(text)
    for index in range(reading.index + 1):
        layer = reference.layer(index)
        _round_inputs(layer)
        found = read_layer(layer, index, hidden, blank_layer(reference.config, index))
        hidden = found.after
        progress(index + 1, reading.index + 1)
    pairs = zip(found.state.tensors(), reading.state.tensors(), strict=True)
    return max(relative_rms(one.numpy(), other.numpy()) for one, other in pairs)


def _round_inputs(layer: DecoderLayer) -> None:
    """Let the products that an export may multiply in integers round what they read."""

    def rounded(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        return round_to_eight_bits(inputs[0])

    for matrix in packed_layer(layer).values():
        for module in matrix.modules:
            module.register_forward_pre_hook(rounded)


def round_to_eight_bits(x: Tensor) -> Tensor:
    """Values [..., inputs] in blocks of 32, each its largest / 127 times integers."""
    blocks = in_blocks(x.reshape(-1, x.shape[-1]))
    step = blocks.abs().amax(-1, keepdim=True) / _LEVELS
    whole = torch.round(blocks / divisor(step)) * step
    return whole.reshape(len(blocks), -1)[:, : x.shape[-1]].reshape(x.shape)
