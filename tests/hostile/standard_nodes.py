"""Nodes of the standard operators as a hostile graph may hold them, made from a seed and run.

    python -m tests.hostile.standard_nodes --seed 0 --nodes 100000

runs graphs of one node, or of a few that feed each other, in child processes, if they pass our
checks, and prints the seeds at which one ended by a signal or not at all, or made a tensor of
another shape than ``graph_shapes`` found. Our own operators: ``operator_nodes``. What SECURITY.md
does not promise is left out: sizes that take more memory than there is.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.graph_nodes import read_nodes
from allmem_runtime.files.graph_operators import ALLOWED
from allmem_runtime.files.graph_shapes import check_shapes
from allmem_runtime.files.onnx_scan import MAX_FIELDS, scan
from tests.hostile import watched

OPERATORS = [
    (domain, name)
    for domain in ("", "com.microsoft")
    for name in sorted(ALLOWED[domain])
    if name != "If"  # the walk enters its graphs
]
_MOST_MEMORY = 3 << 30
_INTEGERS = (-(1 << 63), -(1 << 31), -1, 0, 1, 2, 3, 16, 127, 1 << 31, (1 << 62) + 1, (1 << 63) - 1)
_FLOATS = (0.0, -1.0, 1e-5, 1.0, 3e38, math.inf, math.nan)
_ELEMENTS = ("float32",) * 4 + ("float16", "float64", "int64", "int64", "int32", "uint8", "bool")
_TYPES = {
    "And": ("bool",), "Or": ("bool",), "BitShift": ("uint8",), "BitwiseAnd": ("uint8", "int64"),
    **dict.fromkeys(
        ("Gelu", "Gemm", "LayerNormalization", "QuickGelu", "SimplifiedLayerNormalization",
         "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
        ("float32",),
    ),
}  # fmt: skip
_SIZES_FROM = {  # inputs whose numbers say how large something is, or where
    "Gather": {1}, "GatherBlockQuantized": {1}, "Pad": {1}, "Range": {0, 1, 2}, "ReduceMax": {1},
    "ReduceMean": {1}, "ReduceSum": {1}, "Reshape": {1}, "Slice": {1, 2, 3, 4}, "Split": {1},
    "Squeeze": {1}, "Unsqueeze": {1},
}  # fmt: skip


class Draft:
    """A graph while it is being made: its nodes, what is fed, what it holds, what it has made."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.feeds: list[onnx.ValueInfoProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.fed: dict[str, np.ndarray] = {}
        self.values: list[str] = []

    def add_node(self) -> None:
        """A node of any operator, its inputs new ones or what earlier nodes made."""
        draw, number = self.draw, len(self.nodes)
        domain, operator = draw.choice(OPERATORS)
        form = ALLOWED[domain][operator]
        least, most = form.inputs
        count = draw.randint(least, min(most, 5)) if draw.random() < 0.9 else draw.randint(0, 6)
        least, most = form.outputs
        outputs = [f"y{number}.{i}" for i in range(draw.randint(least, min(most, 5)))]
        fitting = _fitting(operator, len(outputs), draw)
        attributes = fitting | {
            name: _value(name, draw)
            for name in form.attributes
            if draw.random() < (0.1 if name in fitting else 0.3)
        }
        if draw.random() < 0.03:
            attributes["axis"] = _value("axis", draw)
        node = helper.make_node(operator, [], outputs, domain=domain)
        for name in list(attributes):
            node.attribute.append(helper.make_attribute(name, attributes[name]))
        types = _TYPES.get(operator, _ELEMENTS) if draw.random() < 0.9 else _ELEMENTS
        common = _dims(draw), draw.choice(types)
        for at in range(count):
            sizes = at in _SIZES_FROM.get(operator, ())
            if self.values and draw.random() < (0.2 if sizes else 0.6):
                node.input.append(draw.choice(self.values))
            else:
                array = _array(operator, at, attributes, common, draw)
                node.input.append("" if draw.random() < 0.02 else self.given(array))
        self.nodes.append(node)
        self.values += outputs

    def given(self, array: np.ndarray) -> str:
        """A value that is fed, or that the graph holds."""
        draw, name = self.draw, f"x{len(self.feeds) + len(self.weights)}"
        if draw.random() < 0.4:
            self.weights.append(numpy_helper.from_array(array, name))
            return name
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        dims = [n if draw.random() < 0.7 else None for n in array.shape]
        known = dims if draw.random() < 0.6 else None
        self.feeds.append(helper.make_tensor_value_info(name, element, known))
        self.fed[name] = array
        return name


def made(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The graph of this seed, and what it is fed."""
    draw = Random(seed)
    draft = Draft(draw)
    for _ in range(draw.choice((1, 1, 1, 1, 1, 2, 3))):
        draft.add_node()
    results = [helper.make_empty_tensor_value_info(name) for name in draft.values]
    graph = helper.make_graph(draft.nodes, "odd", draft.feeds, results, draft.weights)
    opsets = [
        helper.make_opsetid("", draw.choice((20, 21))),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), draft.fed


def run(seed: int) -> str:
    """Run the graph once; ``ran``, or what it was refused with."""
    model, fed = made(seed)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        path = Path(file.name)
        try:
            scan(path)
            shapes = {name: array.shape for name, array in fed.items()}
            found = check_shapes(read_nodes(path, MAX_FIELDS), shapes, path)
        except ModelFileError as error:
            return str(error)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = session.run(list(found), fed)
    except (*watched.ORDINARY, MemoryError) as error:
        return str(error)
    for (name, shape), result in zip(found.items(), results, strict=True):
        fits = len(shape) == result.ndim and all(
            wanted in (None, length) for wanted, length in zip(shape, result.shape, strict=True)
        )
        assert fits, f"{name} has the shape {result.shape}, not {shape}"
    return "ran"


def _value(name: str, draw: Random) -> Any:
    """A value of an attribute, of the kind that its name has."""
    if name == "approximate":
        return draw.choice(("none", "tanh", "", "sigmoid"))
    if name in ("direction", "mode", "value_string"):
        return draw.choice(("RIGHT", "LEFT", "constant", "reflect", "", "x" * 100))
    if name in ("alpha", "beta", "epsilon"):
        return draw.choice(_FLOATS)
    if name == "perm":
        numbers = list(range(draw.randint(1, 5)))
        draw.shuffle(numbers)
        return numbers if draw.random() < 0.7 else numbers[:-1] + [numbers[0]]
    if name == "value_ints":
        return [draw.choice(_INTEGERS)]
    if name == "value":
        return helper.make_tensor("value", TensorProto.FLOAT, [2], [1.0, 2.0])
    return draw.choice(_INTEGERS) if draw.random() < 0.2 else draw.randint(-3, 6)


def _fitting(operator: str, outputs: int, draw: Random) -> dict[str, Any]:
    """Attributes without which a node of the operator never comes to its kernel."""
    block, axis = draw.choice((16, 32, 64)), draw.choice((0, 0, -1, 1))
    if operator == "MatMulNBits":
        size, width = draw.choice((1, 16, 33, 64)), draw.choice((1, 8, 33))
        bits, level = draw.choice((2, 4, 8)), draw.choice((0, 4))
        return {"K": size, "N": width, "bits": bits, "block_size": block, "accuracy_level": level}
    if operator == "GatherBlockQuantized":
        axes = {"gather_axis": draw.choice((0, 0, 1)), "quantize_axis": draw.choice((1, 1, 0))}
        return {**axes, "bits": draw.choice((4, 8)), "block_size": block}
    return {
        "BitShift": {"direction": draw.choice(("LEFT", "RIGHT"))},
        "Cast": {"to": draw.choice((1, 2, 3, 6, 7, 9, 10, 11)), "saturate": 1},
        "Concat": {"axis": axis},
        "Gather": {"axis": axis},
        "LayerNormalization": {"axis": -1, "stash_type": 1},
        "Gemm": {"alpha": 1.0, "transA": draw.randint(0, 1), "transB": draw.randint(0, 1)},
        "Mod": {"fmod": draw.randint(0, 1)},
        "Pad": {"mode": "constant"},
        "Softmax": {"axis": axis},
        "Split": {"axis": axis, "num_outputs": outputs},
    }.get(operator, {})


def _dims(draw: Random) -> tuple[int, ...]:
    return tuple(
        draw.choice((0, 1, 1, 2, 3, 8, 33)) for _ in range(draw.choice((0, 1, 2, 2, 3, 4)))
    )


def _array(
    operator: str, at: int, attributes: dict[str, Any], common: tuple[Any, str], draw: Random
) -> np.ndarray:
    if operator == "Where" and at == 0:
        common = common[0], "bool"
    if at in _SIZES_FROM.get(operator, ()):
        count = 0 if operator == "Range" else draw.choice((0, 1, 1, 2, 3, 4))
        numbers = [
            draw.choice(_INTEGERS) if draw.random() < 0.2 else draw.randint(-3, 6)
            for _ in range(max(count, 1))
        ]
        found = np.array(numbers, np.int64)
        return found.reshape(()) if count == 0 and operator in ("Range", "Gather") else found
    dims, element = common
    if operator in ("MatMulNBits", "GatherBlockQuantized") and draw.random() < 0.9:
        dims, element = _packed(operator, at, attributes, draw)
    elif draw.random() < 0.3:
        dims = _dims(draw) if draw.random() < 0.5 else dims[draw.randint(0, len(dims)) :]
    elif operator == "Concat":
        dims = tuple(draw.choice((n, n, n, 0, 2)) for n in dims)
    elif operator in ("MatMul", "Gemm") and dims and at == 1:
        dims = (dims[-1], 3)
    elif (operator.startswith("Skip") and at == 2) or (operator.startswith("LayerNorm") and at):
        dims = dims[-1:]
    numbers = np.random.default_rng(draw.getrandbits(32)).integers(0, 5, dims)
    return np.asarray(numbers).astype(element)


def _packed(
    operator: str, at: int, attributes: dict[str, Any], draw: Random
) -> tuple[tuple[int, ...], str]:
    """Shape and type of an input of quantized weights, right more often than not."""
    bits, block, size, width = (
        min(max(attributes.get(name, usual), 1), 64)
        for name, usual in (("bits", 4), ("block_size", 32), ("K", 64), ("N", 4))
    )
    blocks = -(-size // block)
    dims: tuple[int, ...]
    if operator == "MatMulNBits":
        packed = (width, blocks, block * bits // 8)
        dims = [(draw.choice((0, 1, 3)), size), packed, (width, blocks),
                (width, -(-blocks * bits // 8)), (size,), (width,)][min(at, 5)]  # fmt: skip
        element = "uint8" if at in (1, 3) else "float32"
    else:
        dims = [(width, size), (1,), (width, blocks), (width, blocks)][min(at, 3)]
        element = "float32" if at == 2 else "uint8"
    if draw.random() < 0.2:
        cut = draw.randrange(len(dims))
        dims = dims[:cut] + (max(dims[cut] - 1, 0),) + dims[cut + 1 :]
    return dims, element


@click.command()
@click.option("--seed", default=0, help="The first one.")
@click.option("--nodes", default=1000, help="How many.")
@click.option("--child", is_flag=True, hidden=True)
def main(seed: int, nodes: int, child: bool) -> None:
    """Run generated graphs in child processes and print where one crashed or hung."""
    if child:
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        watched.run_all(range(seed, seed + nodes), run)
        return
    found = watched.watch(
        "tests.hostile.standard_nodes", seed, nodes, watched.environment(None, sanitized=False)
    )
    for failure in found.failures:
        print(f"seed {failure.seed}: {made(failure.seed)[0].graph.node}\n{failure.report}\n")
    print(f"{found.done} nodes, {found.ran} ran, {len(found.failures)} failures")
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
