"""The PyTorch model with the very weights that an export stores: what its check compares with.

Matrices are rounded as `weights.store` rounds them, so that all that is left between the graph and
PyTorch is arithmetic, and a damaged weight shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.quantization.block_formats import quantize_blocks
from allmem_exporters.quantization.matmul_nbits import BITS, quantize
from allmem_exporters.quantization.weights import TABLE_BITS, chosen_products


def rounded(
    matrix: Tensor, storage: str, products: str | None = None, *, table: bool = False
) -> Tensor:
    """A matrix [outputs, inputs] after it was stored and read again.

    Args:
        matrix: float32.
        storage: one of ``STORAGE``.
        products: one of ``PRODUCTS`` where integers are stored.
        table: whether it is an embedding or a head.
    """
    if storage == "float32":
        return matrix
    if storage == "float16":
        return matrix.half().float()
    rounding = quantize_blocks if products == "allmem" else quantize
    return torch.from_numpy(rounding(matrix, TABLE_BITS if table else BITS[storage]).widened())


@torch.no_grad()
def round_weights(model: AllMemForCausalLM, storage: str, products: str | None = None) -> None:
    """Round the matrices of ``model`` in place, as an export with these choices has them.

    What is packed into one product is rounded together. Alpha is folded in there, and 1 afterwards.
    """
    products = chosen_products(storage, products)
    if storage == "float32":
        return
    for layer in model.model.layers:
        attention, memory, mixer = layer.self_attn, layer.allmem, layer.mlp
        memory.o_proj.weight.copy_(memory.alpha[:, None] * memory.o_proj.weight)
        memory.alpha.fill_(1.0)
        inputs = (attention.q_proj, attention.k_proj, attention.v_proj,
                  memory.q_proj, memory.k_proj, memory.v_proj)  # fmt: skip
        for linears, axis in (
            (inputs, 0),
            ((attention.o_proj, memory.o_proj), 1),
            ((mixer.gate_proj, mixer.up_proj), 0),
            ((mixer.down_proj,), 0),
        ):
            weights = [linear.weight for linear in linears]
            packed = rounded(torch.cat(weights, dim=axis), storage, products)
            parts = packed.split([weight.shape[axis] for weight in weights], dim=axis)
            for weight, part in zip(weights, parts, strict=True):
                weight.copy_(part)
    table = model.model.embed_tokens.weight
    if model.lm_head.weight is not table:
        model.lm_head.weight.copy_(rounded(model.lm_head.weight, storage, products, table=True))
    table.copy_(rounded(table, storage, products, table=True))
