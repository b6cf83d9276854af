"""Held-out figures during training: KL with and without memories, and statistics of writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from allmem_exporters.finetune.data import Sequence
from allmem_exporters.finetune.objective import compare
from allmem_exporters.finetune.passes import Passes, Shape
from allmem_exporters.finetune.recall import observe
from allmem_exporters.finetune.settings import Settings


def middle(bounds: tuple[int, int]) -> int:
    """The geometric middle of a range, at least 1."""
    return max(1, round(math.sqrt(max(bounds[0], 1) * bounds[1])))


@torch.no_grad()
def evaluate(
    passes: Passes,
    sequences: list[Sequence],
    settings: Settings,
    begin: Callable[[int], None] = lambda number: None,
) -> dict[str, Any]:
    """Judge on held-out sequences at the middle of what training draws.

    Args:
        passes: the model.
        sequences: not learned from.
        settings: ranges.
        begin: called with the number of each sequence before it is judged.

    Returns:
        ``kl``, ``kl_window`` (without memories) in nats per counted token past the window,
        ``nll``, ``nll_window``, ``nll_full``; ``kl_within``, the KL inside the window, where there
        should be none; ``kinds`` with KL and KL without memories of each kind; and for each layer
        ``alpha`` (norm), ``strength``, ``growth`` and ``clipped`` (see ``Writing``). Left out is
        what no token tells of.
    """
    draws = settings.draws
    window = middle(draws.window)
    shape = Shape(window, sum(draws.sinks) // 2, min(window, middle(draws.chunk)))
    past: dict[str, list[torch.Tensor]] = {}
    within: list[torch.Tensor] = []
    for number, sequence in enumerate(sequences):
        begin(number)
        ids = torch.as_tensor(sequence.ids, device=passes.device)[None]
        counted = torch.as_tensor(sequence.counts[1:], device=passes.device).nonzero()[:, 0]
        if not len(counted):
            continue
        teacher = passes.teacher(ids)[0, counted]
        students = [
            passes.student(ids, shape, memories=memories)[0, counted] for memories in (True, False)
        ]
        rows = compare(students, teacher, ids[0, counted + 1], passes.head, passes.softcap)
        beyond = counted >= shape.window + shape.sinks
        past.setdefault(sequence.kind, []).append(rows[:, beyond])
        within.append(rows[0, ~beyond])
    found = _figures(past)
    if any(len(part) for part in within):
        found["kl_within"] = float(torch.cat(within).mean())
    return found | _layers(passes, sequences[0], shape.chunk)


def _figures(past: dict[str, list[torch.Tensor]]) -> dict[str, Any]:
    names = ("kl", "nll", "kl_window", "nll_window", "nll_full")
    everything = [rows for kind in past.values() for rows in kind if rows.shape[1]]
    found: dict[str, Any] = {"kinds": {}}
    if everything:
        found |= zip(names, torch.cat(everything, dim=1).mean(1).tolist(), strict=True)
    for kind, parts in sorted(past.items()):
        rows = torch.cat(parts, dim=1)
        if rows.shape[1]:
            found["kinds"][kind] = dict(zip(names, rows.mean(1).tolist(), strict=True))
    return found


def _layers(passes: Passes, sequence: Sequence, chunk: int) -> dict[str, list[float]]:
    ids = torch.as_tensor(sequence.ids, device=passes.device)[None]
    writings = [observe(layer.allmem, view.x, chunk) for layer, view in passes.teacher_layers(ids)]
    return {
        "alpha": [float(layer.allmem.alpha.norm()) for layer in passes.decoder.layers],
        "strength": [writing.strength for writing in writings],
        "growth": [writing.growth for writing in writings],
        "clipped": [writing.clipped for writing in writings],
    }
