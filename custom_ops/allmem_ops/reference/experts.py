"""ExpertMatMul in NumPy: one row of one choice after the other, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from allmem_ops.products import EXPERT_MATMUL
from allmem_ops.reference.product import gated_inputs, quantized_matmul


def expert_matmul(
    x: NDArray[np.float32],
    expert: NDArray[np.int64],
    matrix: NDArray[np.float32] | None = None,
    numbers: NDArray[np.uint8] | None = None,
    scales: NDArray[np.float16] | None = None,
    bias: NDArray[np.float32] | None = None,
    *,
    width: int,
    bits: int = 32,
    input_gate: str = "none",
) -> NDArray[np.float64]:
    """Multiply each row with the matrices of the experts that were chosen for it.

    Args:
        x: [tokens, beside, inputs], where ``beside`` is 1 or the number of choices; twice as many
            inputs with a gate.
        expert: [tokens, choices], from 0 on.
        matrix: [experts, width, inputs], where ``bits`` is 32.
        numbers: [experts, tiles, blocks, 64 * bits] otherwise; of each expert as
            ``quantized_matmul`` takes them. Inputs then are rounded to eight bits as there.
        scales: [experts, tiles, blocks, 2 or 1, 16], beside ``numbers``.
        bias: [experts, width], or None.
        width: outputs of a matrix.
        bits: 4, 8 or 32.
        input_gate: ``none`` or ``silu``.

    Returns:
        [tokens, choices, width].

    Raises:
        ValueError: an attribute is outside its range, or inputs do not fit each other or ``bits``.
    """
    EXPERT_MATMUL.attribute_values({"width": width, "bits": bits, "input_gate": input_gate})
    if bits not in (4, 8, 32):
        raise ValueError(f"ExpertMatMul: bits is {bits}; it must be 4, 8 or 32")
    if (matrix is None, numbers is None, scales is None) != (bits != 32, bits == 32, bits == 32):
        raise ValueError(
            f"ExpertMatMul: bits is {bits}; matrix goes with 32, and numbers and scales with 4 or 8"
        )
    (tokens, beside, _), (rows, choices) = x.shape, expert.shape
    if rows != tokens or beside not in (1, choices):
        raise ValueError(
            f"ExpertMatMul: x has shape {x.shape} and expert {expert.shape}; a token has one row, "
            "or one for each of its choices"
        )
    y = np.zeros((tokens, choices, width))
    for token in range(tokens):
        for choice in range(choices):
            chosen = int(expert[token, choice])
            row = x[token, choice if beside > 1 else 0][None]
            product = _of_one(row, chosen, matrix, numbers, scales, width, bits, input_gate)
            y[token, choice] = product if bias is None else product + bias[chosen]
    return y


def _of_one(
    row: NDArray[np.float32],
    chosen: int,
    matrix: NDArray[np.float32] | None,
    numbers: NDArray[np.uint8] | None,
    scales: NDArray[np.float16] | None,
    width: int,
    bits: int,
    input_gate: str,
) -> NDArray[np.float64]:
    """Of a row [1, inputs] the product with one matrix, [width]."""
    product: NDArray[np.float64]
    if numbers is not None and scales is not None:
        (products,) = quantized_matmul(
            row, numbers[chosen], scales[chosen], width=width, bits=bits, input_gate=input_gate
        )
        product = products[0]
        return product
    assert matrix is not None
    if input_gate == "silu":
        row = gated_inputs(row)
    product = matrix[chosen].astype(np.float64) @ row[0].astype(np.float64)
    return product
