"""The training losses: KL of the whole model, or each layer's own error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from allmem_exporters.finetune.attention import windowed_attention
from allmem_exporters.finetune.data import Sequence
from allmem_exporters.finetune.objective import distillation
from allmem_exporters.finetune.passes import Passes, Shape
from allmem_exporters.finetune.recall import recall

_LEAST_PAST = 0.25
"""Fraction of a sequence that must lie past the window for its layers to learn from it."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What one sequence gave; its gradients have been added to the parameters.

    Attributes:
        value: in nats per counted token, or the unexplained part of the layers' shortfall.
        tokens: positions that counted.
    """

    value: float
    tokens: int


def position_weights(
    sequence: Sequence, shape: Shape, beyond: float, device: torch.device
) -> Tensor:
    """Weight [length - 1] of each position as a predictor of the next token; they sum to 1.

    In plain text positions past the window weigh ``beyond`` times the others, whose teacher and
    student see the same; elsewhere all counted tokens weigh the same.
    """
    weights = torch.as_tensor(sequence.counts[1:], dtype=torch.float32, device=device)
    if sequence.kind == "text":
        weights = weights.clone()
        weights[shape.window + shape.sinks :] *= beyond
    return weights / weights.sum().clamp(min=1.0)


def model_loss(
    passes: Passes, sequence: Sequence, shape: Shape, beyond: float, cross_entropy: float,
    scale: float,
) -> Loss:  # fmt: skip
    """KL of the whole model on one sequence; adds ``scale`` times its gradient."""
    device = passes.device
    ids = torch.as_tensor(sequence.ids, device=device)[None]
    weights = position_weights(sequence, shape, beyond, device)
    counted = weights.nonzero()[:, 0]
    teacher = passes.teacher(ids)[0, counted]
    student = passes.student(ids, shape)[0, counted]
    loss = distillation(
        student, teacher, ids[0, counted + 1], weights[counted], passes.head, cross_entropy,
        passes.softcap,
    )  # fmt: skip
    (scale * loss).backward()
    return Loss(float(loss.detach()), len(counted))


def layer_losses(passes: Passes, sequence: Sequence, shape: Shape, scale: float) -> Loss:
    """Mean over the layers of the unexplained part of what the window hides from each.

    Layers that keep the window they were trained with are left out: nothing is hidden from them.

    The target of a layer is the difference between its full and its windowed attention in the
    pretrained model, relative to the mean square of that difference past the window. Of sequences
    that hardly pass the window it learns nothing: relative to next to nothing, all is a mistake.
    """
    ids = torch.as_tensor(sequence.ids, device=passes.device)[None]
    first = shape.window + shape.sinks
    layers = sum(not layer.self_attn.local for layer in passes.decoder.layers)
    if not layers or ids.shape[1] - first < _LEAST_PAST * ids.shape[1]:
        return Loss(0.0, 0)
    total = torch.zeros((), device=passes.device)  # read once, or every layer would be waited for
    for layer, view in passes.teacher_layers(ids):
        if layer.self_attn.local:
            continue
        with torch.no_grad():
            seen = windowed_attention(layer.self_attn, view.heads, shape.window, shape.sinks)
            target = (view.attended - seen).float()
            energy = target[:, first:].square().sum().clamp(min=1e-12)
        # One layer's graph at a time is small enough to keep whole.
        loss = (
            recall(layer.allmem, view.x, shape.chunk, save_memory=False) - target
        ).square().sum() / energy
        (scale / layers * loss).backward()
        total += loss.detach()
    return Loss(float(total) / layers, ids.shape[1])
