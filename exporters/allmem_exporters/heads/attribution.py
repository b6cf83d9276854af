"""How much of the distance to full attention every band of every head takes away.

Integrated gradients (arXiv 1703.01365) over the gates of ``banded_attention``, from the shortest
window to full reach along the straight line: what the bands are given adds up to the KL divergence
at the shortest window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from allmem_exporters.finetune.attention import project
from allmem_exporters.finetune.data.sequence import Sequence as Tokens
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.heads.banded_attention import banded_attention
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.layers import capped

MOST_POSITIONS = 128
"""Answer tokens of a sequence that are looked at, spread evenly."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What one sequence says.

    Attributes:
        kind: of the sequence.
        divergence: mean KL divergence in nats from full attention with the shortest window.
        worth: [layers][kv_heads][bands], nats that each band takes away.
    """

    kind: str
    divergence: float
    worth: list[list[list[float]]]


class Attributor:
    """Finds the worth of heads, sequence by sequence.

    Args:
        passes: the frozen decoder.
        windows: ascending; the first is what every head has.
        sinks: first tokens that all see.
        steps: points of the integral.
    """

    def __init__(self, passes: Passes, windows: Sequence[int], sinks: int, steps: int = 2) -> None:
        self._passes, self._windows, self._sinks, self._steps = passes, windows, sinks, steps

    def attribute(self, sequence: Tokens) -> Attribution | None:
        """The worth by one sequence; None where nothing is asked beyond the shortest window."""
        positions = answer_positions(sequence, self._windows[0] + self._sinks)
        if not len(positions):
            return None
        ids = torch.as_tensor(sequence.ids, device=self._passes.device)[None]
        layers = self._passes.decoder.layers
        heads = self._passes.model.config.num_key_value_heads
        size = (len(layers), heads, len(self._windows) - 1)
        with torch.no_grad():
            truth = self.log_probabilities(self._passes.teacher(ids), positions)
            start = self.divergence(ids, torch.zeros(size), truth, positions).item()
        worth = torch.zeros(size)
        for step in range(self._steps):
            gates = torch.full(size, (step + 0.5) / self._steps, requires_grad=True)
            self.divergence(ids, gates, truth, positions).backward()
            assert gates.grad is not None
            worth -= gates.grad / self._steps
        return Attribution(sequence.kind, start, worth.tolist())

    def divergence(self, ids: Tensor, gates: Tensor, truth: Tensor, positions: Tensor) -> Tensor:
        """Mean KL divergence from ``truth`` [positions, vocab_size] with these gates."""
        found = self.found(ids, gates, positions)
        return (truth.exp() * (truth - found)).sum(-1).mean()

    def found(self, ids: Tensor, gates: Tensor, positions: Tensor) -> Tensor:
        """Logarithms of the probabilities [positions, vocab_size] with these gates."""
        hidden = self._passes.embed(ids)
        for layer, own in zip(self._passes.decoder.layers, gates, strict=True):
            if torch.is_grad_enabled():
                hidden = checkpoint(
                    self._layer, layer, hidden, own, use_reentrant=False, preserve_rng_state=False
                )
            else:
                hidden = self._layer(layer, hidden, own)
        return self.log_probabilities(self._passes.last_norm(hidden), positions)

    def _layer(self, layer: DecoderLayer, hidden: Tensor, gates: Tensor) -> Tensor:
        x = self._passes.read(layer, hidden)
        heads = project(layer.self_attn, x)
        attended = banded_attention(layer.self_attn, heads, self._windows, self._sinks, gates)
        return self._passes.after(layer, hidden, x, attended)

    def log_probabilities(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """Of the next token at these positions, from normed hidden states."""
        logits = (hidden[0, positions] @ self._passes.head.T).float()
        return capped(logits, self._passes.softcap).log_softmax(-1)


def answer_positions(sequence: Tokens, first: int) -> Tensor:
    """Positions from ``first`` on whose next token counts, at most ``MOST_POSITIONS`` of them."""
    positions = torch.as_tensor(sequence.counts)[1:].nonzero()[:, 0]
    positions = positions[positions >= first]
    if len(positions) > MOST_POSITIONS:
        chosen = torch.linspace(0, len(positions) - 1, MOST_POSITIONS).long()
        positions = positions[chosen]
    return positions
