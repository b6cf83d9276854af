"""What is known of the shape of what a node makes, by the shapes of what it is given.

Only the number of axes has to be right always; an axis whose length is not told is None. Lengths
matter where they are a number of axes: of the shape that a Reshape gets, of the axes of an
Unsqueeze. Source: the ONNX standard, and what ONNX Runtime's kernels do where that leaves a choice.
"""

from __future__ import annotations

from collections.abc import Callable

from allmem_runtime.files.shape_call import Call, Shape, ShapeError, broadcast, unknown

Rule = Callable[[Call], list[Shape]]


def same(call: Call) -> list[Shape]:
    """All outputs have the shape of the first input."""
    return [call.shape(0)] * len(call.node.outputs)


def resized(call: Call) -> list[Shape]:
    """All outputs have as many axes as the first input."""
    return [unknown(len(call.shape(0)))] * len(call.node.outputs)


def each(call: Call) -> list[Shape]:
    """Number by number."""
    return [broadcast(call.shapes())]


def product(call: Call) -> list[Shape]:
    """MatMul."""
    one, other = call.shape(0), call.shape(1)
    if not one or not other:
        raise ShapeError("multiplies a tensor without axes")
    rows = () if len(one) == 1 else one[-2:-1]
    columns = () if len(other) == 1 else other[-1:]
    return [broadcast([one[:-2], other[:-2]]) + rows + columns]


def gemm(call: Call) -> list[Shape]:
    """Gemm, whose third input may be left out."""
    bias = call.given[2] if len(call.given) > 2 else None
    if (len(call.shape(0)), len(call.shape(1))) != (2, 2) or len(bias or ()) > 2:
        raise ShapeError("multiplies what is no matrix")
    return [unknown(2)]


def joined(call: Call) -> list[Shape]:
    """Concat. Where ONNX Runtime finds tensors of several ranks, it may end the process."""
    shapes = call.shapes()
    ranks = {len(shape) for shape in shapes}
    if len(ranks) != 1:
        raise ShapeError(f"joins tensors of {' and '.join(map(str, sorted(ranks)))} axes")
    axis = call.axis(ranks.pop())
    lengths = [shape[axis] for shape in shapes]
    known = [length for length in lengths if length is not None]
    whole = sum(known) if len(known) == len(lengths) else None
    first = shapes[0]
    return [(*unknown(axis), whole, *unknown(len(first) - axis - 1))]


def gathered(call: Call) -> list[Shape]:
    """The axis gives way to those of the indices."""
    data, indices = call.shape(0), call.shape(1)
    name = "axis" if call.node.operator == "Gather" else "gather_axis"
    axis = call.axis(len(data), name)
    if name == "gather_axis":  # numbers packed in bytes are more than there are bytes
        data = unknown(len(data))
    return [data[:axis] + indices + data[axis + 1 :]]


def reduced(call: Call) -> list[Shape]:
    """Axes get the length 1, or go; without any, all do, or none."""
    rank = len(call.shape(0))
    call.count(1)
    if call.number("keepdims", 1):
        return [unknown(rank)]
    taken = call.axes(1, rank)
    if not taken:
        raise ShapeError("takes away all axes or none")
    return [unknown(rank - taken)]


def squeezed(call: Call) -> list[Shape]:
    """Axes go; where none is named, those of length 1."""
    shape = call.shape(0)
    if len(call.given) > 1:
        call.count(1)
        return [unknown(len(shape) - call.axes(1, len(shape)))]
    if None in shape:
        raise ShapeError("takes away a number of axes that nothing tells")
    return [tuple(length for length in shape if length != 1)]


def unsqueezed(call: Call) -> list[Shape]:
    """Axes of length 1 are added."""
    shape, axes = call.shape(0), call.count(1)
    return [unknown(axes, 1) if not shape else unknown(len(shape) + axes)]


def sizes(call: Call) -> list[Shape]:
    """Shape: one number for each axis from ``start`` to before ``end``."""
    rank = len(call.shape(0))
    first, last = (
        min(max(value + rank if value < 0 else value, 0), rank)
        for value in (call.number("start", 0), call.number("end", rank))
    )
    return [(max(last - first, 0),)]


def turned(call: Call) -> list[Shape]:
    """Transpose."""
    shape = call.shape(0)
    order = call.numbers("perm")
    if order is None:
        order = tuple(reversed(range(len(shape))))
    if sorted(order) != list(range(len(shape))):
        raise ShapeError(f"turns {len(shape)} axes by {list(order)}")
    return [tuple(shape[axis] for axis in order)]


def along_axis(usual: int, beyond: int = 0) -> Callable[[Rule], Rule]:
    """A rule for nodes with an axis, which must be one of the first input's."""

    def checked(rule: Rule) -> Rule:
        def apply(call: Call) -> list[Shape]:
            call.axis(len(call.shape(0)), usual=usual, beyond=beyond)
            return rule(call)

        return apply

    return checked


def normed(call: Call) -> list[Shape]:
    """The second and the third output are none that ONNX Runtime makes on every device."""
    if any(call.node.outputs[1:3]):
        raise ShapeError("has an output that no kernel makes")
    return same(call)


def quantized_product(call: Call) -> list[Shape]:
    """MatMulNBits."""
    rows = call.shape(0)
    if not rows:
        raise ShapeError("multiplies a tensor without axes")
    return [(*rows[:-1], call.number("N", 0))]


_SAME = ("Abs", "Cast", "Cos", "Exp", "Gelu", "Identity", "Log", "Neg", "QuickGelu", "Relu",
         "Round", "Sigmoid", "Sin", "Sqrt", "Tanh")  # fmt: skip
_EACH = ("Add", "And", "BitShift", "BitwiseAnd", "Div", "Equal", "Greater", "GreaterOrEqual",
         "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub",
         "Where")  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(_EACH, each),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), reduced),
    "Concat": joined,
    "Flatten": along_axis(1, beyond=1)(lambda call: [unknown(2)]),
    "Gather": gathered,
    "GatherBlockQuantized": gathered,
    "Gemm": gemm,
    "LayerNormalization": along_axis(-1)(same),
    "MatMul": product,
    "MatMulNBits": quantized_product,
    "OptionalHasElement": lambda call: [()],
    "Pad": resized,
    "Range": lambda call: [unknown(1)],
    "Reshape": lambda call: [unknown(call.count(1))],
    "Shape": sizes,
    "SimplifiedLayerNormalization": normed,
    "SkipLayerNormalization": normed,
    "SkipSimplifiedLayerNormalization": normed,
    "Slice": resized,
    "Softmax": along_axis(-1)(same),
    "Split": along_axis(0)(resized),
    "Squeeze": squeezed,
    "Transpose": turned,
    "Unsqueeze": unsqueezed,
}
"""By the operator's name: those of ``graph_operators`` but for If, Constant and our own."""
