"""The operators that a graph may be made of, and how their nodes look: as exports write them.

ONNX has some two hundred. Those that are not here could run for ever (Loop, Scan), take any memory
for the asking (ConstantOfShape, Expand, Tile), or were never tried with this runtime. Of those that
are here ONNX Runtime does not check every attribute and every missing input: some end the process.
"""

from __future__ import annotations

from allmem_ops.schema import KNOWN
from allmem_runtime.files.node_form import (
    AXIS,
    FLAG,
    MANY,
    Form,
    element,
    finite,
    graph,
    numbers,
    reference,
    tensor,
    text,
    whole,
    word,
)

OPERATOR_DOMAIN = "ai.allmem"

_UNARY = (
    "Abs", "Cos", "Exp", "Identity", "Log", "Neg", "Relu", "Round", "Sigmoid", "Sin", "Sqrt",
    "Tanh",
)  # fmt: skip
_BINARY = (
    "Add", "And", "BitwiseAnd", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "MatMul", "Max", "Min", "Mul", "Or", "Pow", "Sub",
)  # fmt: skip
_SIZE = whole(1, 1 << 31)

_STANDARD = {
    **dict.fromkeys(_UNARY, Form(inputs=(1, 1))),
    **dict.fromkeys(_BINARY, Form(inputs=(2, 2))),
    "BitShift": Form(inputs=(2, 2), attributes={"direction": word("LEFT", "RIGHT")}),
    "Cast": Form(inputs=(1, 1), attributes={"to": element, "saturate": FLAG}),
    "Concat": Form(inputs=(1, MANY), attributes={"axis": AXIS}),
    "Constant": Form(
        inputs=(0, 0),
        attributes={
            "value": tensor,
            "value_int": reference(whole()),
            "value_ints": numbers(),
            "value_string": reference(text),
        },
        one_attribute=True,
    ),
    "Flatten": Form(inputs=(1, 1), attributes={"axis": AXIS}),
    "Gather": Form(inputs=(2, 2), attributes={"axis": AXIS}),
    "Gelu": Form(inputs=(1, 1), attributes={"approximate": word("none", "tanh")}),
    "Gemm": Form(
        inputs=(2, 3),
        attributes={"alpha": finite, "beta": finite, "transA": FLAG, "transB": FLAG},
    ),
    "If": Form(
        inputs=(1, 1), outputs=(1, MANY), attributes={"then_branch": graph, "else_branch": graph}
    ),
    "LayerNormalization": Form(
        inputs=(2, 3), attributes={"axis": AXIS, "epsilon": finite, "stash_type": whole(1, 1)}
    ),
    "Mod": Form(inputs=(2, 2), attributes={"fmod": FLAG}),
    "OptionalHasElement": Form(inputs=(1, 1)),
    "Pad": Form(inputs=(2, 3), attributes={"mode": word("constant")}),
    "Range": Form(inputs=(3, 3)),
    **dict.fromkeys(
        ("ReduceMax", "ReduceMean", "ReduceSum"),
        Form(inputs=(2, 2), attributes={"keepdims": FLAG, "noop_with_empty_axes": FLAG}),
    ),
    "Reshape": Form(inputs=(2, 2), attributes={"allowzero": FLAG}),
    "Shape": Form(inputs=(1, 1), attributes={"start": AXIS, "end": AXIS}),
    # Of ONNX Runtime, under the standard's name.
    "SimplifiedLayerNormalization": Form(
        inputs=(2, 2), outputs=(1, 2), attributes={"axis": whole(-1, -1), "epsilon": finite}
    ),
    "Slice": Form(inputs=(3, 5)),
    "Softmax": Form(inputs=(1, 1), attributes={"axis": AXIS}),
    # Counts that differ end the process.
    "Split": Form(
        inputs=(1, 2),
        outputs=(1, MANY),
        attributes={"axis": AXIS, "num_outputs": whole(1, MANY)},
        counts_outputs="num_outputs",
    ),
    "Squeeze": Form(inputs=(1, 2)),
    "Transpose": Form(inputs=(1, 1), attributes={"perm": numbers(0, 7)}),
    "Unsqueeze": Form(inputs=(2, 2)),
    "Where": Form(inputs=(3, 3)),
}
_BITS = {"bits": whole(2, 8), "block_size": whole(16, 1 << 16)}
_MICROSOFT = {
    "GatherBlockQuantized": Form(
        inputs=(3, 4), attributes={"gather_axis": AXIS, "quantize_axis": AXIS, **_BITS}
    ),
    "MatMulNBits": Form(
        inputs=(3, 4), attributes={"K": _SIZE, "N": _SIZE, "accuracy_level": whole(0, 4), **_BITS}
    ),
    "QuickGelu": Form(inputs=(1, 1), attributes={"alpha": finite}),
    "SkipLayerNormalization": Form(inputs=(3, 4), outputs=(1, 4), attributes={"epsilon": finite}),
    "SkipSimplifiedLayerNormalization": Form(
        inputs=(3, 3), outputs=(1, 4), attributes={"epsilon": finite}
    ),
}

ALLOWED: dict[str, dict[str, Form]] = {
    "": _STANDARD,
    "ai.onnx": _STANDARD,  # another name of the same domain
    "com.microsoft": _MICROSOFT,
    # Ours look at every attribute and every input themselves.
    OPERATOR_DOMAIN: dict.fromkeys(
        KNOWN, Form(inputs=(0, MANY), outputs=(0, MANY), checks_itself=True)
    ),
}
"""How nodes of an operator look, by the name of its domain and its own."""

VERSIONS = {"": (20, 21), "ai.onnx": (20, 21), "com.microsoft": (1,)}
"""Of a domain's operators that nodes may be of; for our own the library says so."""
