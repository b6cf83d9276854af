"""QuantisedMatMul in NumPy: how its weights lie in memory, and what the product is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
"""Inputs that share a scale."""

TILE = 16
"""Outputs that lie interleaved."""


def interleaved(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Lay integers out as the operator reads them.

    Of each tile of 16 outputs and block of 32 inputs the bytes are: for each group of four inputs,
    for each output, the four numbers. With 4 bits the first four groups are in the lower halves of
    the bytes and the last four in the upper ones.

    Args:
        numbers: [outputs, blocks, BLOCK], one number an element, below 2 ** bits.
        bits: 4 or 8.

    Returns:
        [ceil(outputs / TILE), blocks, 64 * bits]; outputs beyond the last are zeros.
    """
    outputs, blocks, _ = numbers.shape
    padded = np.pad(numbers, ((0, -outputs % TILE), (0, 0), (0, 0)))
    groups = padded.reshape(-1, TILE, blocks, BLOCK // 4, 4).transpose(0, 2, 3, 1, 4)
    if bits == 4:
        groups = groups[:, :, :4] | groups[:, :, 4:] * np.uint8(16)
    return np.ascontiguousarray(groups.reshape(len(groups), blocks, -1))


def separated(stored: NDArray[np.uint8], outputs: int, bits: int) -> NDArray[np.uint8]:
    """The inverse of ``interleaved``: [outputs, blocks, BLOCK]."""
    tiles, blocks, _ = stored.shape
    groups = stored.reshape(tiles, blocks, -1, TILE, 4)
    if bits == 4:
        groups = np.concatenate([groups & 15, groups >> 4], axis=2)
    return groups.transpose(0, 3, 1, 2, 4).reshape(tiles * TILE, blocks, BLOCK)[:outputs]


def interleaved_scales(*kinds: NDArray[np.floating]) -> NDArray[np.float16]:
    """Scales [outputs, blocks], and with 4 bits minimums, as the operator reads them."""
    both = np.stack(kinds, axis=2).astype(np.float16)
    padded = np.pad(both, ((0, -len(both) % TILE), (0, 0), (0, 0)))
    tiles = padded.reshape(-1, TILE, *padded.shape[1:])
    return np.ascontiguousarray(tiles.transpose(0, 2, 3, 1))


def weights_of(
    numbers: NDArray[np.uint8], scales: NDArray[np.float16], outputs: int, bits: int
) -> NDArray[np.float64]:
    """The matrix [outputs, blocks * BLOCK] that is stored: scale x number + minimum.

    Eight bits have no minimum; there a weight is scale x (number - 128).
    """
    wide = separated(numbers, outputs, bits).astype(np.float64)
    factors = scales.astype(np.float64).transpose(0, 3, 1, 2).reshape(-1, *scales.shape[1:3])
    scale, *minimum = np.moveaxis(factors[:outputs], 2, 0)[..., None]
    matrix: NDArray[np.float64] = wide * scale + (minimum[0] if minimum else -128 * scale)
    return matrix.reshape(outputs, -1)


def rounded_inputs(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """``x`` [rows, inputs] in eight bits: blocks of 32, each largest / 127 times integers.

    Padded with zeros to whole blocks. A block that is not finite becomes NaN, and one whose step
    is below the least normal number zeros.
    """
    blocks = -(-x.shape[1] // BLOCK)
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % BLOCK))).reshape(len(x), blocks, BLOCK)
    step = np.abs(padded).max(axis=2, keepdims=True) / np.float32(127)
    usable = np.isfinite(step) & (step >= np.finfo(np.float32).tiny)
    inverse = np.divide(np.float32(1), step, out=np.zeros_like(step), where=usable)
    whole = np.rint(np.where(usable, padded, np.float32(0)) * inverse)
    kept = np.where(usable, step, 0)
    wide: NDArray[np.float64] = whole.astype(np.float64)
    wide *= np.where(np.isfinite(step), kept, np.nan)
    return wide.reshape(len(x), blocks * BLOCK)


def gated_inputs(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """silu(gate) * up of ``rows`` [rows, gates then ups], rounded to float32 once, at the end."""
    gate, up = np.split(rows.astype(np.float64), 2, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        gated: NDArray[np.float32] = (gate / (1 + np.exp(-gate)) * up).astype(np.float32)
    return gated


def quantized_matmul(
    x: NDArray[np.float32],
    numbers: NDArray[np.uint8],
    scales: NDArray[np.float16],
    bias: NDArray[np.float32] | None = None,
    x_more: NDArray[np.float32] | None = None,
    *,
    width: int,
    bits: int = 4,
    input_gate: str = "none",
    first_width: int = 0,
) -> tuple[NDArray[np.float64], ...]:
    """See the operator table; float64 after the inputs were rounded.

    Args:
        x: [..., inputs] float32; twice as many with a gate, fewer beside ``x_more``.
        numbers: [tiles, blocks, 64 * bits] uint8, see ``interleaved``.
        scales: [tiles, blocks, 2 or 1, TILE] float16: scales, and with 4 bits minimums.
        bias: [width].
        x_more: [..., more], what follows x.
        width: width of the result.
        bits: 4 or 8.
        input_gate: ``none`` or ``silu``.
        first_width: width of the first result, or 0 where there is one alone.

    Returns:
        y [..., width], or y [..., first_width] and y_more [..., width - first_width].
    """
    whole = x if x_more is None else np.concatenate([x, x_more], axis=-1)
    rows = whole.reshape(-1, whole.shape[-1])
    if input_gate == "silu":
        rows = gated_inputs(rows)
    product = rounded_inputs(rows) @ weights_of(numbers, scales, width, bits).T
    if bias is not None:
        product = product + bias
    product = product.reshape(*x.shape[:-1], width)
    return tuple(np.split(product, [first_width], axis=-1)) if first_width else (product,)
