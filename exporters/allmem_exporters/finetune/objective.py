"""Forward KL from teacher to student over the positions that count, a slice of logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from allmem_exporters.model.layers import capped

SLICE = 256
"""Positions whose logits are held at a time."""


class _Distillation(torch.autograd.Function):
    """Loss and the gradient of the student's states in one go, so no logits are kept."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor, head: Tensor,
        cross_entropy: float, softcap: float | None,
    ) -> Tensor:  # fmt: skip
        total = torch.zeros((), device=student.device)
        gradient = torch.empty_like(student, dtype=torch.float32)
        for start in range(0, len(student), SLICE):
            part = slice(start, start + SLICE)
            logits = capped((student[part] @ head.T).float(), softcap)
            ours = logits.log_softmax(-1)
            theirs = capped((teacher[part] @ head.T).float(), softcap).log_softmax(-1)
            wanted = theirs.exp()
            each = (wanted * (theirs - ours)).sum(-1)
            if cross_entropy:
                each -= cross_entropy * ours.gather(-1, targets[part, None])[:, 0]
            total += (weights[part] * each).sum()
            slope = ours.exp_().mul_(1.0 + cross_entropy).sub_(wanted)
            if cross_entropy:
                slope.scatter_add_(
                    -1, targets[part, None], torch.full_like(slope[:, :1], -cross_entropy)
                )
            slope *= weights[part, None]
            if softcap is not None:  # of c tanh(x) it is c (1 - tanh(x)^2)
                slope *= softcap - logits.square() / softcap
            gradient[part] = (slope.to(head.dtype) @ head).float()
        ctx.save_for_backward(gradient)
        ctx.dtype = student.dtype
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (slope * gradient).to(ctx.dtype), None, None, None, None, None, None


def distillation(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    weights: Tensor,
    head: Tensor,
    cross_entropy: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Weighted sum of KL(teacher || student) over positions.

    Args:
        student: [positions, hidden_size], normed hidden states; the only input with a gradient.
        teacher: [positions, hidden_size].
        targets: [positions] int64, the tokens that follow.
        weights: [positions], of each position in the sum.
        head: [vocab_size, hidden_size], frozen.
        cross_entropy: weight of the student's own loss on ``targets`` beside the KL.
        softcap: of the logits, of which ``head`` makes parts; None where there is none.

    Returns:
        The loss.
    """
    loss: Tensor = _Distillation.apply(
        student, teacher, targets, weights, head, cross_entropy, softcap
    )
    return loss


@torch.no_grad()
def compare(
    students: list[Tensor],
    teacher: Tensor,
    targets: Tensor,
    head: Tensor,
    softcap: float | None = None,
) -> Tensor:
    """KL and negative log likelihood at each position, with logits in float32.

    Args:
        students: each [positions, hidden_size].
        teacher: [positions, hidden_size].
        targets: [positions] int64.
        head: [vocab_size, hidden_size] in any type.
        softcap: as in ``distillation``.

    Returns:
        [2 len(students) + 1, positions] in nats: KL(teacher || student) and likelihood of each
        student, then the teacher's likelihood.
    """
    wide = head.float()
    columns = []
    for start in range(0, len(teacher), SLICE):
        part = slice(start, start + SLICE)

        def chances(states: Tensor) -> Tensor:
            return capped(states[part].float() @ wide.T, softcap).log_softmax(-1)  # noqa: B023

        def missed(logs: Tensor) -> Tensor:
            return -logs.gather(-1, targets[part, None])[:, 0]  # noqa: B023

        theirs = chances(teacher)
        wanted = theirs.exp()
        rows = []
        for student in students:
            ours = chances(student)
            rows += [(wanted * (theirs - ours)).sum(-1), missed(ours)]
        columns.append(torch.stack([*rows, missed(theirs)]))
    return torch.cat(columns, dim=1)
