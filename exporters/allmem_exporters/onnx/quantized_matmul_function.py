"""QuantisedMatMul as an ONNX function of standard operators, for any ONNX Runtime.

One body serves all sizes, both numbers of bits, and all forms: the product is a Gemm, which may do
without a bias, and what stands before it is chosen by an If that ONNX Runtime takes away where it
is decided when the model is opened, which is always but for x_more. The matrix is widened to
float32, once when the model is opened where ONNX Runtime folds constants.

A node has to name both outputs, the second by an empty text if it has none: ONNX Runtime 1.31 does
not open a function whose node has fewer outputs than the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import helper, parser

from allmem_exporters.onnx.function_body import OPSET
from allmem_ops.products import QUANTIZED_MATMUL
from allmem_ops.schema import DOMAIN

WIDE = "WideMatMul"
"""The same with inputs as they are, not rounded: what an export's check compares weights with."""
WIDENING, GIVEN = "WidenedMatrix", "GivenMatMul"
"""The two parts of ``WIDE``: what makes the matrix, and what multiplies with it."""

_BODY = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <width, bits: int = 4, input_gate: string = "none", first_width: int = 0>
(x, numbers, scales, bias, x_more) => (y, y_more)
{{
    width_ = Constant <value_int: int = @width> ()
    bits_ = Constant <value_int: int = @bits> ()
    last = Constant <value_ints = [-1]> ()
    first = Constant <value_ints = [0]> ()
    second = Constant <value_ints = [1]> ()
    third = Constant <value_ints = [2]> ()
    eight = Constant <value_ints = [8]> ()
    block = Constant <value_ints = [32]> ()
    four = Constant <value = int64 {{4}}> ()
    shift = Constant <value = uint8 {{4}}> ()
    mask = Constant <value = uint8 {{15}}> ()
    one = Constant <value = float {{1.0}}> ()
    sixteen = Constant <value = float {{16.0}}> ()
    middle = Constant <value = float {{128.0}}> ()
    groups = Constant <value_ints = [0, 0, -1, 16, 4]> ()
    end = Unsqueeze (width_, first)
    is_four = Equal (bits_, four)
    low_bytes = BitwiseAnd (numbers, mask)
    high_bytes = BitShift <direction = "RIGHT"> (numbers, shift)
    low_flat = Cast <to = 1> (low_bytes)
    high_flat = Cast <to = 1> (high_bytes)
    low = Reshape (low_flat, groups)
    high = Reshape (high_flat, groups)
    has_minimum = Cast <to = 1> (is_four)
    is_eight = Sub (one, has_minimum)
    sixteen_or_none = Mul (sixteen, is_eight)
    upper = Mul (high, sixteen_or_none)
    low_or_byte = Add (low, upper)
    both = Concat <axis = 2> (low_or_byte, high)
    eight_groups = Slice (both, first, eight, third)
    zero_point = Mul (middle, is_eight)
    wide = Sub (eight_groups, zero_point)
    factors = Cast <to = 1> (scales)
    scale_row = Gather <axis = 2> (factors, first)
    other_row = Gather <axis = 2> (factors, last)
    minimum_row = Mul (other_row, has_minimum)
    scale = Unsqueeze (scale_row, last)
    minimum = Unsqueeze (minimum_row, last)
    scaled = Mul (wide, scale)
    weights = Add (scaled, minimum)
    turned = Transpose <perm = [1, 2, 4, 0, 3]> (weights)
    sizes = Shape (numbers)
    blocks = Gather (sizes, second)
    whole_inputs = Mul (blocks, block)
    two = Concat <axis = 0> (whole_inputs, last)
    padded_matrix = Reshape (turned, two)
    matrix = Slice (padded_matrix, first, end, second)
    is_joined = OptionalHasElement (x_more)
    whole_rows = If (is_joined) <
        then_branch = joined () => (float[?, ?] joined_rows) {{
            both_parts = Concat <axis = -1> (x, x_more)
            joined_rows = Flatten <axis = -1> (both_parts)
        }},
        else_branch = alone () => (float[?, ?] lone_rows) {{ lone_rows = Flatten <axis = -1> (x) }}
    >
    gate_ = Constant <value_string: string = @input_gate> ()
    silu = Constant <value_string = "silu"> ()
    is_gated = Equal (gate_, silu)
    rows = If (is_gated) <
        then_branch = gated () => (float[?, ?] gated_rows) {{
            gate, up = Split <axis = 1, num_outputs = 2> (whole_rows)
            chance = Sigmoid (gate)
            active = Mul (gate, chance)
            gated_rows = Mul (active, up)
        }},
        else_branch = plain () => (float[?, ?] plain_rows) {{ plain_rows = Identity (whole_rows) }}
    >
    inputs = Shape <start = 1> (rows)
    missing = Sub (whole_inputs, inputs)
    none = Constant <value_ints = [0, 0, 0]> ()
    more = Concat <axis = 0> (none, missing)
    filled = Pad (rows, more)
    {rounding}
    product = Gemm (rounded, matrix, bias)
    leading = Shape <start = 0, end = -1> (x)
    first_width_ = Constant <value_int: int = @first_width> ()
    zero = Constant <value = int64 {{0}}> ()
    is_whole = Equal (first_width_, zero)
    near_width = Where (is_whole, width_, first_width_)
    border = Unsqueeze (near_width, first)
    far_width = Sub (end, border)
    near = Slice (product, first, border, second)
    far = Slice (product, border, end, second)
    near_shape = Concat <axis = 0> (leading, border)
    far_shape = Concat <axis = 0> (leading, far_width)
    y = Reshape <allowzero = 1> (near, near_shape)
    y_more = Reshape <allowzero = 1> (far, far_shape)
}}
"""

# No If tells the two numbers of bits apart: ONNX Runtime folds no constants behind one. Eight bits
# have a lower and an upper half each, and the second eight groups are left over.
#
# Below the least normal number a step counts as nothing, as in the kernels.
_ROUNDING = """
    count = Shape <start = 0, end = 1> (rows)
    in_blocks = Concat <axis = 0> (count, blocks, block)
    cut = Reshape <allowzero = 1> (filled, in_blocks)
    size = Abs (cut)
    most = ReduceMax <keepdims = 1> (size, last)
    steps = Constant <value = float {127.0}> ()
    least = Constant <value = float {1.17549435e-38}> ()
    step = Div (most, steps)
    tiny = Less (step, least)
    safe = Where (tiny, one, step)
    inverse = Div (one, safe)
    exact = Mul (cut, inverse)
    whole = Round (exact)
    stepped = Mul (whole, safe)
    shape_again = Shape (filled)
    rounded = Reshape <allowzero = 1> (stepped, shape_again)
"""


def product_function(*, wide: bool = False) -> onnx.FunctionProto:
    """The body.

    Args:
        wide: under the name ``WIDE``, with inputs as they are.
    """
    return parser.parse_function(
        _BODY.format(
            domain=DOMAIN,
            opset=OPSET,
            name=WIDE if wide else QUANTIZED_MATMUL.name,
            rounding="rounded = Identity (filled)" if wide else _ROUNDING,
        )
    )


def widening_function() -> onnx.FunctionProto:
    """Of ``WIDE`` what widens the matrix: (numbers, scales) to [padded inputs, width]."""
    whole = product_function(wide=True)
    return _part(whole, WIDENING, ["numbers", "scales"], ["matrix"])


def given_function() -> onnx.FunctionProto:
    """Of ``WIDE`` what multiplies: (x, matrix, bias, x_more) to (y, y_more)."""
    whole = product_function(wide=True)
    inputs = helper.make_node("Shape", ["matrix"], ["whole_inputs"], start=0, end=1)
    return _part(whole, GIVEN, ["x", "matrix", "bias", "x_more"], list(whole.output), [inputs])


def _part(
    whole: onnx.FunctionProto,
    name: str,
    inputs: list[str],
    outputs: list[str],
    instead: Iterable[onnx.NodeProto] = (),
) -> onnx.FunctionProto:
    """The nodes of a function that lie between some values, as a function of its own.

    Args:
        whole: the function.
        name: of the part.
        inputs: of the part.
        outputs: of the part.
        instead: nodes of the part that make what other nodes make in the whole.
    """
    first = list(instead)
    known = {*inputs, *(made for node in first for made in node.output)}
    wanted = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(whole.node):
        if wanted.intersection(node.output) - known:
            kept.append(node)
            wanted.update(_read(node))
    return helper.make_function(
        whole.domain,
        name,
        inputs,
        outputs,
        [*first, *reversed(kept)],
        whole.opset_import,
        list(whole.attribute),
        list(whole.attribute_proto),
    )


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node and its branches read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)
