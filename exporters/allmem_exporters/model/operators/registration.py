"""Gradients of the operators, by running them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def differentiable(operator: Any, function: Callable[..., tuple[Tensor, ...]]) -> None:
    """Give ``operator`` the gradient of ``function``, taken by running it again."""

    def setup(
        ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Any
    ) -> None:
        ctx.save_for_backward(*inputs)
        ctx.attributes = keyword_only_inputs

    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            inputs = [
                tensor if tensor is None else tensor.detach().requires_grad_(needed)
                for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
            ]
            outputs = function(*inputs, **ctx.attributes)
        pairs = [
            (out, gradient)
            for out, gradient in zip(outputs, gradients, strict=True)
            if gradient is not None and out.requires_grad
        ]
        wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True
            )
            if pairs
            else [None] * len(wanted)
        )
        return tuple(
            next(found) if tensor is not None and tensor.requires_grad else None
            for tensor in inputs
        )

    torch.library.register_autograd(operator, backward, setup_context=setup)
