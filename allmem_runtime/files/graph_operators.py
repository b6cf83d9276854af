"""The operators that a graph may be made of: what exports hold, and no more.

ONNX has some two hundred. Those that are not here could run for ever (Loop, Scan), take any memory
for the asking (ConstantOfShape, Expand, Tile), or were never tried with this runtime.
"""

from __future__ import annotations

OPERATOR_DOMAIN = "ai.allmem"

_STANDARD = frozenset(
    {
        "Abs", "Add", "And", "BitShift", "BitwiseAnd", "Cast", "Concat", "Constant", "Cos",
        "Div", "Equal", "Exp", "Flatten", "Gather", "Gemm", "Greater", "GreaterOrEqual",
        "Identity", "If", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mod",
        "Mul", "Neg", "OptionalHasElement", "Or", "Pad", "Range", "ReduceMax", "ReduceMean",
        "ReduceSum", "Reshape", "Round", "Shape", "Sigmoid", "Sin", "Slice", "Softmax",
        "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
_MICROSOFT = frozenset(
    {"GatherBlockQuantized", "MatMulNBits", "QuickGelu", "SkipSimplifiedLayerNormalization"}
)
_OURS = frozenset({"QuantisedMatMul", "SlidingWindowAttention", "TTTMemory"})

ALLOWED = {
    "": _STANDARD,
    "ai.onnx": _STANDARD,  # another name of the same domain
    "com.microsoft": _MICROSOFT,
    OPERATOR_DOMAIN: _OURS,
}
"""Names of operators by their domain."""
