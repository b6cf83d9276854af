"""How much a row is worth keeping once it has left the window: by surprise, or learned.

Surprise is what the model itself says of a token, -log p, averaged over its neighbors. What is
learned is, as in KVzap (arXiv 2601.07891), a linear function of what the layer reads, here fitted
by ridge regression to the most attention that a token gets from the answers of recall tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.attention import Rotary, scored
from allmem_exporters.finetune.data.sequence import Sequence as Tokens
from allmem_exporters.finetune.passes import LayerView, Passes
from allmem_exporters.heads.attribution import answer_positions
from allmem_exporters.model.layers import WindowAttention, capped

Scorer = Callable[[int, Tensor], Tensor]
"""From a layer's number and what it reads [1, time, hidden_size] to scores [kv_heads, time]."""

NEIGHBORS = 5
"""Tokens over which a score is averaged, the token itself in the middle."""
LEAST = 1e-4
"""Attention below it counts as this much."""
RIDGE = 1e-2
"""Of the mean square of what a layer reads."""
BLOCK = 512


def smooth(scores: Tensor) -> Tensor:
    """[heads, time], each averaged with its neighbors."""
    return functional.avg_pool1d(
        scores[None], NEIGHBORS, 1, NEIGHBORS // 2, count_include_pad=False
    )[0]


def surprise(passes: Passes, hidden: Tensor, ids: Tensor) -> Scorer:
    """By -log p of each token, from normed hidden states [1, time, hidden_size] of the reading."""
    length = ids.shape[1]
    found = torch.zeros(1, length)
    for start in range(0, length - 1, BLOCK):
        end = min(start + BLOCK, length - 1)
        logits = capped((hidden[0, start:end] @ passes.head.T).float(), passes.softcap)
        wanted = ids[0, start + 1 : end + 1]
        found[0, start + 1 : end + 1] = functional.cross_entropy(logits, wanted, reduction="none")
    scores = smooth(found).expand(passes.model.config.num_key_value_heads, -1)
    return lambda number, x: scores


class Learned:
    """Fits the score of every head, sequence by sequence.

    Args:
        passes: the frozen decoder.
        nearest: the shortest window; what lies within it of an answer is not asked for.
        sinks: first tokens, which are kept in any case.
    """

    def __init__(self, passes: Passes, nearest: int, sinks: int) -> None:
        self._passes, self._nearest, self._sinks = passes, nearest, sinks
        layers, size = len(passes.decoder.layers), passes.model.config.hidden_size
        self._squares = torch.zeros(layers, size, size, dtype=torch.float64)
        heads = passes.model.config.num_key_value_heads
        self._products = torch.zeros(layers, size, heads, dtype=torch.float64)

    @torch.no_grad()
    def learn(self, sequences: Sequence[Tokens]) -> None:
        """Take these into account; those that ask for nothing beyond the window say nothing."""
        for sequence in sequences:
            positions = answer_positions(sequence, self._nearest + self._sinks)
            if not len(positions):
                continue
            ids = torch.as_tensor(sequence.ids)[None]
            last = int(positions[-1]) - self._nearest + 1
            for number, (layer, view) in enumerate(self._passes.teacher_layers(ids)):
                wanted = received(layer.self_attn, view, positions, self._nearest)
                target = wanted.clamp(min=LEAST).log()[:, self._sinks : last].mT.double()
                x = view.x[0, self._sinks : last].double()
                x, target = x - x.mean(0), target - target.mean(0)  # only the order matters
                self._squares[number] += x.mT @ x
                self._products[number] += x.mT @ target

    def scorer(self) -> Scorer:
        """The scores as fitted by now.

        Raises:
            DataError: no sequence that was learned asks for anything beyond the shortest window.
        """
        if not self._squares.any():
            raise DataError(
                "No training sequence of a kind of recall asks for anything beyond the shortest "
                f"window of {self._nearest} tokens, so that no score can be learned.",
                "Give data with longer sequences, or --chosen surprise.",
            )
        level = RIDGE * self._squares.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-30)
        ridge = level[:, None, None] * torch.eye(self._squares.shape[-1], dtype=torch.float64)
        weights = torch.linalg.solve(self._squares + ridge, self._products).float()
        return lambda number, x: smooth((x[0].float() @ weights[number]).mT)


def received(
    attention: WindowAttention, view: LayerView, positions: Tensor, nearest: int
) -> Tensor:
    """The most attention that tokens get from ``positions``, from afar: [kv_heads, time]."""
    heads = view.heads
    time = torch.arange(heads.key.shape[2])
    query = Rotary(attention, heads.query.device)(heads.query[:, :, positions], positions)
    grouped = query.unflatten(1, (heads.key.shape[1], -1))
    logits = scored(attention, grouped @ heads.key[:, :, None].mT)
    logits = logits.masked_fill(time > positions[:, None], -torch.inf)
    far = time <= positions[:, None] - nearest
    return (logits.softmax(-1) * far).amax(dim=(2, 3))[0]
