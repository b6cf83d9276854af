"""The products of the operator table, which know no state: QuantisedMatMul and ExpertMatMul.

Shapes of QuantisedMatMul are written with these names, where ceil rounds up:

    inputs, width        of the matrix: what it takes of a row of x, and a row of the product
    more                 values of a row that x_more holds
    first_width          outputs that y holds, the attribute, where y_more holds the others
    bits                 of a number, the attribute, with 4 and with 8 being all there is

and of ExpertMatMul:

    tokens, choices      rows of x, and how many of the experts each of them goes through
    beside               choices, or 1 where a token's choices read the same row
    experts              how many there are
"""

from __future__ import annotations

from allmem_ops.contract import Attribute, Flag, Operator, Tensor

_WIDTH = Attribute("width", None, "outputs of a matrix", "int", minimum=1, native_maximum=1 << 31)
_INPUT_GATE = Attribute(
    "input_gate",
    "none",
    "silu: the inputs are silu(first half of a row) * second half",
    "string",
    choices=("none", "silu"),
)
_GATED = Flag("gated", (("input_gate", ("silu",)),))

QUANTIZED_MATMUL = Operator(
    name="QuantisedMatMul",
    version=1,
    doc=(
        "x times a matrix of integers in blocks of 32 inputs, x being rounded to eight bits "
        "in the same blocks: 4 bits are scale * number + minimum, 8 bits scale * (number - 128). "
        "What often stands before and after it may be part of it: a Concat, a gate, a Split."
    ),
    inputs=(
        Tensor(
            "x",
            ("...", "inputs"),
            "float32",
            "activations; 2 * inputs of them with a gate, and `more` fewer beside x_more",
        ),
        Tensor(
            "numbers",
            ("ceil(width / 16)", "ceil(inputs / 32)", "64 * bits"),
            "uint8",
            "of 16 outputs and 32 inputs: for each four inputs, for each output, the four numbers; "
            "with 4 bits the upper half of a byte belongs to the input 16 further on",
        ),
        Tensor(
            "scales",
            ("ceil(width / 16)", "ceil(inputs / 32)", "2 with 4 bits, 1 with 8", 16),
            "float16",
            "scales of 16 outputs, then with 4 bits their minimums",
        ),
        Tensor("bias", ("width",), "float32", "is added to the product", True),
        Tensor("x_more", ("...", "more"), "float32", "follows x along the last axis", True),
    ),
    outputs=(
        Tensor("y", ("...", "width"), "float32", "the product; its first first_width, if set"),
        Tensor(
            "y_more",
            ("...", "width - first_width"),
            "float32",
            "the rest of the product; there if, and only if, first_width is set",
            optional=True,
        ),
    ),
    attributes=(
        _WIDTH,
        Attribute("bits", 4, "of a number, 4 or 8", "int", minimum=4, maximum=8),
        _INPUT_GATE,
        Attribute(
            "first_width",
            0,
            "outputs that y holds, below width; 0: it holds all",
            "int",
            minimum=0,
        ),
    ),
    flags=(_GATED,),
)
"""For CPUs, and optional: an export may use MatMulNBits of ONNX Runtime instead."""

EXPERT_MATMUL = Operator(
    name="ExpertMatMul",
    version=5,
    doc=(
        "Products of a mixture of experts: each row of x times the matrices of the experts that "
        "were chosen for it. Only the chosen matrices are read."
    ),
    inputs=(
        Tensor(
            "x",
            ("tokens", "beside", "inputs"),
            "float32",
            "activations; 2 * inputs of them with a gate",
        ),
        Tensor("expert", ("tokens", "choices"), "int64", "which matrix, from 0 on"),
        Tensor(
            "matrix",
            ("experts", "width", "inputs"),
            "float32",
            "there if, and only if, bits is 32",
            optional=True,
        ),
        Tensor(
            "numbers",
            ("experts", "ceil(width / 16)", "ceil(inputs / 32)", "64 * bits"),
            "uint8",
            "of each expert as QuantisedMatMul has them",
            optional=True,
        ),
        Tensor(
            "scales",
            ("experts", "ceil(width / 16)", "ceil(inputs / 32)", "2 with 4 bits, 1 with 8", 16),
            "float16",
            "the same",
            optional=True,
        ),
        Tensor("bias", ("experts", "width"), "float32", "is added to the product", optional=True),
    ),
    outputs=(Tensor("y", ("tokens", "choices", "width"), "float32", "the products"),),
    attributes=(
        _WIDTH,
        Attribute(
            "bits",
            32,
            "of a number, 4 or 8; 32: matrices are float32",
            "int",
            minimum=4,
            maximum=32,
        ),
        _INPUT_GATE,
    ),
    flags=(_GATED,),
)
"""For CPUs, as QuantisedMatMul is. It has no state."""
