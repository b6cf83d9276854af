"""ExpertMatMul for PyTorch, of float32 matrices: plain tensor arithmetic, and its registration."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def expert_product(
    x: Tensor,
    expert: Tensor,
    matrix: Tensor,
    bias: Tensor | None = None,
    *,
    input_gate: str = "none",
) -> Tensor:
    """Each row times the matrices of the experts that were chosen for it.

    Arguments, shapes and meaning are those of ``allmem_ops.reference.experts``, with tensors for
    arrays. Rows of one expert are multiplied together, and no other expert's matrix is read.
    """
    choices = expert.shape[1]
    if input_gate == "silu":
        gate, up = x.chunk(2, dim=-1)
        x = functional.silu(gate) * up
    rows = x.expand(-1, choices, -1).flatten(0, 1)
    flat = expert.flatten()
    order = flat.argsort(stable=True)
    chosen, counts = flat[order].unique_consecutive(return_counts=True)
    products = [rows.new_zeros(0, matrix.shape[1])]
    for one, part in zip(chosen.tolist(), order.split(counts.tolist()), strict=True):
        own = None if bias is None else bias[one]
        products.append(functional.linear(rows[part], matrix[one], own))
    joined = torch.cat(products).index_select(0, order.argsort())
    return joined.reshape(*expert.shape, matrix.shape[1])


expert_matmul = torch.library.custom_op("allmem::expert_matmul", expert_product, mutates_args=())
"""`expert_product` as one opaque operator of PyTorch; it has no gradient."""


@expert_matmul.register_fake
def _fake(
    x: Tensor,
    expert: Tensor,
    matrix: Tensor,
    bias: Tensor | None = None,
    *,
    input_gate: str = "none",
) -> Tensor:
    return x.new_empty(*expert.shape, matrix.shape[1])
