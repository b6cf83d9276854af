"""Checks that a converted model is the pretrained one, before anything is made of it.

Both read one random text: transformers' own code the source as it is, our code the converted
weights with a window that covers the text. A layer at a time lies in memory, so this goes for
models of any size. Embedding and head are compared on some of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from allmem_exporters.convert.converted_reading import converted_logits
from allmem_exporters.convert.pretrained_reading import PretrainedReading
from allmem_exporters.errors import ConversionError
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.reading import generic_logits
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.rope import rotary_frequencies
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.sources import Source
from allmem_exporters.tokenizer_file import named_failure

TOLERANCE = 1e-4
"""Relative RMS of the logits.

In float32 sums in another order are all there is, some 1e-6 in a model of 30 layers. Where a model
enlarges them beyond this, both are computed once more in float64, in which a model that was
converted rightly differs by some 1e-7, the rounding of angles and norms.
"""
_WITHOUT = "`--no-check` converts it without the comparison."
_TOKENS = 48
"""Different tokens of the text."""
_LENGTH = 80
_WINDOW = 24
"""Of layers that have a window of their own, so that the text is longer than it."""
_MOST = 512
"""Tokens that a text may have to reach beyond a length the rope was scaled from."""


def check_conversion(
    source: Source,
    weights: ModelWeights,
    stored: torch.dtype,
    texts: Path,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Compare a converted model and its tokenizer with their source.

    Args:
        source: the pretrained model.
        weights: of the converted model.
        stored: the type that the source's weights were rounded to.
        texts: folder with the tokenizer.
        report: is told what was compared and how it agrees, a line at a time.

    Raises:
        ConversionError: logits differ by more than ``TOLERANCE``, or a text is cut otherwise.
    """
    with ThreadPoolExecutor(1) as beside:  # it waits for a process of its own
        told = beside.submit(source.compare_texts, texts)
        same = _compare_logits(source, weights, stored)
        if (compared := told.result()) is not None:
            report(f"compared: {compared}")
    report(same)


def _compare_logits(source: Source, weights: ModelWeights, stored: torch.dtype) -> str:
    """What was compared with transformers' own code, and how it agrees.

    Raises:
        ConversionError: logits or angles differ by more than ``TOLERANCE``.
    """
    config, name = weights.config, source.provenance["name"]
    rng = np.random.default_rng(0)
    inner = rng.integers(0, config.vocab_size, _TOKENS).tolist()
    vocabulary = sorted({0, *inner, config.vocab_size - 1})
    text = rng.integers(0, len(vocabulary), _length(config)).tolist()
    positions = _positions(config)
    window = len(text) if config.trained_window is None else _WINDOW
    generic = isinstance(config, GenericConfig)
    for dtype in (torch.float32, torch.float64):
        if generic:
            found = generic_logits(weights, vocabulary, text, window, dtype)
        else:
            found = converted_logits(weights, vocabulary, text, window, _WINDOW, dtype)
        with named_failure(f"{name}: transformers' own code cannot run it", _WITHOUT):
            pretrained = source.pretrained()
            reading = PretrainedReading(pretrained, vocabulary, _WINDOW, stored, dtype)
            wanted = reading.logits(text)
            rotations = [] if generic else list(reading.rotations(positions))
        if (error := _relative_rms(found, wanted)) <= TOLERANCE:
            break
    else:
        raise _differs(name, f"the logits of {len(text)} tokens by {error:.1e}")
    if generic:  # its rope was held against transformers' at all positions when it was found
        return (
            f"compared with transformers' own code, without a memory and with our attention in it: "
            f"logits of {len(text)} tokens through all {config.num_hidden_layers} layers by "
            f"{error:.1e} (relative RMS)"
        )
    turned = max((_angles(config, one, positions) for one in rotations), default=0.0)
    if not turned <= TOLERANCE:
        raise _differs(name, f"the angles of positions up to {positions[-1]:,} by {turned:.1e}")
    return (
        f"compared with transformers' own code: logits of {len(text)} tokens through all "
        f"{config.num_hidden_layers} layers by {error:.1e} (relative RMS), angles of positions up "
        f"to {positions[-1]:,} by {turned:.1e}"
    )


def _length(config: AllMemConfig) -> int:
    """A text beyond the length that the rope was scaled from, where that is short."""
    original = config.rope_parameters.get("original_max_position_embeddings") or 0
    beyond = original + _LENGTH // 2
    return max(_LENGTH, beyond if beyond <= _MOST else 0)


def _positions(config: AllMemConfig) -> list[int]:
    """Positions before and beyond all lengths that a rope may know."""
    longest = config.max_position_embeddings
    original = config.rope_parameters.get("original_max_position_embeddings") or longest
    return sorted({0, 1, 17, original - 1, original, original + 1, longest - 1, 2 * longest})


def _angles(
    config: AllMemConfig, theirs: tuple[str | None, Tensor, Tensor], positions: Sequence[int]
) -> float:
    """How far our cosines and sines are from transformers'; 0 where no layer turns by them."""
    kind, *turned = theirs
    layers = (
        layer
        for layer in range(config.num_hidden_layers)
        if config.rotates(layer)
        and (kind is None or config.is_local(layer) == (kind == "sliding_attention"))
    )
    if (layer := next(layers, None)) is None:
        return 0.0
    frequencies, amplitude = rotary_frequencies(config, layer)
    angles = torch.tensor(positions, dtype=torch.float32)[:, None] * torch.tensor(frequencies)
    ours = torch.stack([angles.cos(), angles.sin()]) * amplitude
    return _relative_rms(ours, torch.stack(turned))


def _relative_rms(found: Tensor, wanted: Tensor) -> float:
    difference = (found - wanted).double().square().mean().sqrt()
    return float(difference / wanted.double().square().mean().sqrt())


def _differs(name: str, what: str) -> ConversionError:
    return ConversionError(
        f"{name}: the converted model differs from transformers' own: {what}; allowed are "
        f"{TOLERANCE:.0e}.",
        f"This is a defect of the conversion: please report it with the model's config.json. "
        f"{_WITHOUT}",
    )
