"""ExpertMatMul as an ONNX function body, for machines without our library.

It gathers a copy of each chosen matrix, which suits a token at a time: in a long piece the copies
take far more memory than our kernel, which multiplies all rows of an expert together.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir

from allmem_exporters.onnx.function_body import Body, Value, operator_body
from allmem_ops.products import EXPERT_MATMUL
from allmem_ops.reference.product import BLOCK, TILE
from allmem_ops.schema import DOMAIN


def expert_function(
    *, inputs: int, width: int, bits: int = 32, input_gate: str = "none", bias: bool = False
) -> onnx.FunctionProto:
    """Body of ExpertMatMul for one set of sizes.

    Args:
        inputs: of a matrix.
        width: its outputs.
        bits: of its numbers; 32 for float32.
        input_gate: ``none`` or ``silu``.
        bias: whether nodes have one.

    Raises:
        ValueError: an attribute is out of range.
    """
    EXPERT_MATMUL.attribute_values({"width": width, "bits": bits, "input_gate": input_gate})
    b = operator_body(EXPERT_MATMUL)
    rows, expert = b.input("x"), b.input("expert")
    if input_gate == "silu":
        gate, up = rows.split(2, inputs, inputs)
        rows = b.silu(gate) * up
    if bits == 32:
        chosen = b.input("matrix").take(expert, 0)
    else:
        numbers, scales = (b.input(name).take(expert, 0) for name in ("numbers", "scales"))
        blocks = -(-inputs // BLOCK)
        chosen = _widened(b, numbers, scales, -(-width // TILE), blocks, bits)
        chosen = chosen.slice(2, b.integers(0), b.integers(width))
        rows = _rounded(b, rows, blocks * BLOCK - inputs, blocks)
    y = (chosen @ rows.unsqueeze(3)).squeeze(3)
    return b.finish(y + b.input("bias").take(expert, 0) if bias else y)


def expert_bodies(model: ir.Model) -> Iterator[ir.Function]:
    """The bodies that a graph needs; each kind of node has one, which its nodes name.

    Args:
        model: traced, with the shapes of its values; its nodes get their ``overload``.
    """
    kinds: dict[tuple[object, ...], str] = {}
    for node in model.graph:
        if (node.domain, node.op_type) != (DOMAIN, EXPERT_MATMUL.name):
            continue
        given = dict(zip((t.name for t in EXPERT_MATMUL.inputs), node.inputs, strict=False))
        x, gate = given["x"], node.attributes.get_string("input_gate", "none")
        assert x is not None and x.shape is not None and isinstance(x.shape[2], int)
        sizes = {
            "inputs": x.shape[2] // (2 if gate == "silu" else 1),
            "width": node.attributes.get_int("width"),
            "bits": node.attributes.get_int("bits", 32),
        }
        bias = given.get("bias") is not None
        kind = (gate, bias, *sizes.values())
        if kind not in kinds:
            kinds[kind] = f"kind_{len(kinds)}" if kinds else ""
            body = expert_function(**sizes, input_gate=gate, bias=bias)
            body.overload = kinds[kind]
            yield ir.serde.deserialize_function(body)
        node.overload = kinds[kind]


def _widened(b: Body, numbers: Value, scales: Value, tiles: int, blocks: int, bits: int) -> Value:
    """Chosen matrices [tokens, choices, tiles * TILE, blocks * BLOCK] of what is stored of them."""
    if bits == 4:
        halves = (
            b.node("BitwiseAnd", numbers, b.number(15, "uint8")),
            b.node("BitShift", numbers, b.number(4, "uint8"), direction="RIGHT"),
        )
        parts = [half.cast("float32").reshape(0, 0, tiles, blocks, 4, TILE, 4) for half in halves]
        wide = b.concat(4, *parts)
        scale, minimum = scales.cast("float32").split(4, 1, 1)
        wide = wide * scale.unsqueeze(6) + minimum.unsqueeze(6)
    else:
        wide = numbers.cast("float32").reshape(0, 0, tiles, blocks, 8, TILE, 4)
        wide = (wide - b.number(128.0)) * scales.cast("float32").unsqueeze(6)
    # tile, block, group, output, input to tile, output, block, group, input
    return wide.transpose(0, 1, 2, 5, 3, 4, 6).reshape(0, 0, tiles * TILE, blocks * BLOCK)


def _rounded(b: Body, rows: Value, missing: int, blocks: int) -> Value:
    """Rows [tokens, beside, blocks * BLOCK] in eight bits, as `rounded_inputs` makes them."""
    if missing:
        rows = b.node("Pad", rows, b.integers(0, 0, 0, 0, 0, missing))
    cut = rows.reshape(0, 0, blocks, BLOCK)
    most = b.node("ReduceMax", b.node("Abs", cut), b.integers(-1), keepdims=1)
    step = most / b.number(127.0)
    one = b.number(1.0)
    safe = b.where(step < b.number(float(np.finfo(np.float32).tiny)), one, step)
    return (b.node("Round", cut * (one / safe)) * safe).reshape(0, 0, blocks * BLOCK)
