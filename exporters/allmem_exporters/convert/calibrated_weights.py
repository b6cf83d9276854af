"""Converted weights whose fresh memories are fitted to a text, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from allmem_exporters.convert.calibrate import calibrate
from allmem_exporters.convert.converted_weights import ConvertedWeights
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.model.memory_layer import MEMORY
from allmem_exporters.model.state import blank_layer
from allmem_exporters.onnx.reference import Reference, read_layer
from allmem_exporters.tokenizer_conversion import encoded
from allmem_exporters.tokenizer_works import Encoding

_CALIBRATION_TOKENS = 2048
_CALIBRATED = tuple(f"{name}_proj.weight" for name in "qkvo")


class CalibratedWeights:
    """Converted weights after a calibration.

    The text is read as the converted model reads it, in float32. What changes of each layer, four
    matrices of its memory, is kept; everything else is read anew when it is needed.

    Args:
        weights: with fresh memories.
        tokens: of a text of the kind that the model will read.
    """

    def __init__(self, weights: ConvertedWeights, tokens: Sequence[int]) -> None:
        self.config, self.weights = weights.config, weights
        self._changed: dict[str, Tensor] = {}
        reference = Reference(weights, None)
        hidden = reference.embed(tokens)
        for index in range(self.config.num_hidden_layers):
            layer = reference.layer(index)
            reading = read_layer(layer, index, hidden, blank_layer(self.config, index))
            calibrate(layer.allmem, reading.normed)
            hidden = reading.after
            for name in _CALIBRATED:
                full = f"model.layers.{index}{MEMORY}{name}"
                changed = layer.allmem.get_parameter(name).detach()
                self._changed[full] = changed.to(weights.type_of(full))

    def tensor(self, name: str) -> Tensor:
        """See ``ModelWeights``."""
        return self._changed[name] if name in self._changed else self.weights.tensor(name)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """See ``ModelWeights``."""
        if name in self._changed:
            return self._changed[name][first:end]
        return self.weights.rows(name, first, end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``ModelWeights``; memories have none, calibrated or not."""
        return self.weights.factors(name, first, end)

    def type_of(self, name: str) -> torch.dtype:
        """Of a weight."""
        return self.weights.type_of(name)


def refuse_trained(memory: object, calibration_text: str | None) -> None:
    """Refuse to calibrate memories that are trained.

    Raises:
        ConfigError: there are both an adapter and a text.
    """
    if memory is not None and calibration_text is not None:
        raise ConfigError(
            "Trained memories are not calibrated: it would undo what their values learned.",
            "Leave the calibration text out, or the adapter.",
        )


def calibrated(weights: ConvertedWeights, folder: Path, text: str) -> CalibratedWeights:
    """Weights fitted to the beginning of a text.

    Args:
        weights: with fresh memories.
        folder: with the tokenizer.
        text: some thousand tokens or more.

    Raises:
        ConversionError: the text is empty, or the tokenizer takes too much time or memory for it.
    """
    tokens = encoded(
        Encoding(str(folder), text, _CALIBRATION_TOKENS),
        "The tokenizer cannot encode the calibration text",
        "Leave the calibration text out, or give another.",
    )
    if not tokens:
        raise ConversionError("The calibration text is empty.", "Give some paragraphs of text.")
    return CalibratedWeights(weights, tokens)
