"""Forward KL from teacher to student over the positions that count, a slice of logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SLICE = 256
"""Positions whose logits are held at a time."""


class _Distillation(torch.autograd.Function):
    """Loss and the gradient of the student's states in one go, so no logits are kept."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor, head: Tensor,
        cross_entropy: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        kl = torch.zeros(len(student), device=student.device)
        nll = torch.zeros(len(student), device=student.device)
        gradient = torch.empty_like(student, dtype=torch.float32)
        for start in range(0, len(student), SLICE):
            part = slice(start, start + SLICE)
            ours = (student[part] @ head.T).float().log_softmax(-1)
            theirs = (teacher[part] @ head.T).float().log_softmax(-1)
            wanted = theirs.exp()
            kl[part] = (wanted * (theirs - ours)).sum(-1)
            nll[part] = -ours.gather(-1, targets[part, None])[:, 0]
            slope = ours.exp_().mul_(1.0 + cross_entropy).sub_(wanted)
            if cross_entropy:
                slope.scatter_add_(
                    -1, targets[part, None], torch.full_like(slope[:, :1], -cross_entropy)
                )
            slope *= weights[part, None]
            gradient[part] = (slope.to(head.dtype) @ head).float()
        ctx.save_for_backward(gradient)
        ctx.dtype = student.dtype
        total = (weights * (kl + cross_entropy * nll)).sum()
        figures = torch.stack([kl, nll])
        ctx.mark_non_differentiable(figures)
        return total, figures

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return (slope * gradient).to(ctx.dtype), None, None, None, None, None


def distillation(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    weights: Tensor,
    head: Tensor,
    cross_entropy: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of KL(teacher || student) over positions.

    Args:
        student: [positions, hidden_size], normed hidden states; the only input with a gradient.
        teacher: [positions, hidden_size].
        targets: [positions] int64, the tokens that follow.
        weights: [positions], of each position in the sum.
        head: [vocab_size, hidden_size], frozen.
        cross_entropy: weight of the student's own loss on ``targets`` beside the KL.

    Returns:
        The loss, and [2, positions]: KL and the student's negative log likelihood in nats.
    """
    return _Distillation.apply(student, teacher, targets, weights, head, cross_entropy)
