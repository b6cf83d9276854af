"""What a model on the generic path makes of a text that its window covers, one weight at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from allmem_exporters.convert.converted_reading import with_window
from allmem_exporters.convert.pretrained_reading import PretrainedReading
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.decoder import GenericDecoder
from allmem_exporters.generic.interface import NAME
from allmem_exporters.model.modeling import pieces
from allmem_exporters.model.state import AllMemState
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.sources.pretrained import Pretrained

_PIECE = 48
"""Tokens of a piece: a text is read in some."""


@torch.no_grad()
def generic_logits(
    weights: ModelWeights,
    vocabulary: Sequence[int],
    tokens: Sequence[int],
    window: int,
    dtype: torch.dtype,
) -> Tensor:
    """Of each token the logits of some tokens, [time, vocabulary]; the memories take no part.

    Args:
        weights: of the model.
        vocabulary: tokens, by their rows.
        tokens: a text, by places in the vocabulary.
        window: that all layers have; there are no sinks.
        dtype: to compute in, float32 or float64.
    """
    assert isinstance(weights.config, GenericConfig)
    config = with_window(weights.config, window)
    assert isinstance(config, GenericConfig)
    source = Pretrained(config.pretrained, weights)
    reading = PretrainedReading(source, vocabulary, window, dtype, dtype, attention=NAME)
    decoder = GenericDecoder(reading.model, config)
    state, found = list(AllMemState.blank(config, dtype=dtype)), []
    for first, end in pieces(0, len(tokens), min(_PIECE, window)):
        ids = torch.tensor([list(tokens[first:end])])
        index = torch.arange(end - first)
        logits, *state = decoder(ids, torch.tensor([first]), index, state)
        found.append(logits[0])
    return torch.cat(found)
