"""A graph in which a number of axes is wrong, or not told, is refused before anything runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.graph_nodes import read_nodes
from allmem_runtime.files.graph_shapes import check_shapes
from allmem_runtime.files.onnx_scan import MAX_FIELDS, scan

OURS = "ai.allmem"
OPSETS = [
    helper.make_opsetid("", 20),
    helper.make_opsetid(OURS, 1),
    helper.make_opsetid("com.microsoft", 1),
]
FED = {"x": (2, 3), "row": (3,), "sizes": (2,), "cube": (1, None, 4), "one": (1,)}
WEIGHTS = {"empty": np.zeros((0, 3, 1), np.float32), "axis": np.array([0]),
           "both": np.array([0, 0]), "shape": np.array([1, -2]), "far": np.array([6]),
           "twice": np.array([0, -2]), "no": np.zeros(0, np.int64),
           "axes": np.array([0, -1])}  # fmt: skip


def node(operator: str, inputs: str, *outputs: str, domain: str = "", **given: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs or ["y"], domain=domain, **given)


def inner(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    results = [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output]
    return helper.make_graph(list(nodes), "inner", [], results)


def shapes_of(
    folder: Path, *nodes: onnx.NodeProto, body: onnx.FunctionProto | None = None
) -> dict[str, Any]:
    """What is found of the last node's outputs, once the walk let the file pass."""
    element = TensorProto.FLOAT
    feeds = [helper.make_tensor_value_info(name, element, dims) for name, dims in FED.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output]
    weights = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    graph = helper.make_graph(list(nodes), "g", feeds, results, weights)
    functions = [] if body is None else [body]
    model = helper.make_model(graph, opset_imports=OPSETS, functions=functions)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    scan(path)
    return check_shapes(read_nodes(path, MAX_FIELDS), FED, path)


def said_of(folder: Path, *nodes: onnx.NodeProto, body: onnx.FunctionProto | None = None) -> str:
    with pytest.raises(ModelFileError) as caught:
        shapes_of(folder, *nodes, body=body)
    assert caught.value.hint == "Open only models that `allmem export` wrote."
    return caught.value.message


def function(inputs: list[str], outputs: list[str], *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function(OURS, "QuantisedMatMul", inputs, outputs, list(nodes), OPSETS[:1])


JOINED = node("Concat", "x empty", axis=0)


@pytest.mark.parametrize("where", ["graph", "branch", "function", "constants"])
def test_tensors_of_other_ranks_are_not_joined_wherever_that_is(tmp_path: Path, where: str) -> None:
    body = None
    nodes = [JOINED]
    if where == "branch":
        nodes = [
            node("OptionalHasElement", "x", "told"),
            node("If", "told", then_branch=inner(JOINED), else_branch=inner(JOINED)),
        ]
    elif where == "function":
        body = function(["x", "empty"], ["y"], JOINED)
        nodes = [node("QuantisedMatMul", "x empty", domain=OURS)]
    elif where == "constants":  # which ONNX Runtime would compute when it opens the graph
        nodes = [node("Concat", "empty shape", axis=0)]
    ranks = "1 and 3" if where == "constants" else "2 and 3"
    said = said_of(tmp_path, *nodes, body=body)
    assert f"'Concat' of the domain '' joins tensors of {ranks} axes" in said


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Reshape", "x cube")], "a number of axes that nothing tells"),
        ([node("Range", "one one one", "r"), node("Reshape", "x r")], "that nothing tells"),
        ([node("Squeeze", "cube")], "takes away a number of axes that nothing tells"),
        ([node("Squeeze", "x both")], "takes away an axis twice: [0, 0] of 2"),
        ([node("ReduceSum", "x both", keepdims=0)], "takes away an axis twice"),
        ([node("ReduceSum", "x twice", keepdims=0)], "takes away an axis twice: [0, -2] of 2"),
        # Of an empty tensor ONNX Runtime takes no such axis away.
        ([node("ReduceSum", "empty shape", keepdims=0)], "takes away an axis twice"),
        ([node("ReduceMax", "empty far", keepdims=0)], "takes away the axes [6] of 3"),
        ([node("ReduceMax", "x no", keepdims=0)], "takes away all axes or none"),
        ([node("ReduceMax", "x one", keepdims=0)], "takes away axes that nothing tells"),
        ([node("Squeeze", "x one")], "takes away axes that nothing tells"),
        ([node("Identity", "far", "f"), node("Squeeze", "x f")], "that nothing tells"),
        ([node("Unsqueeze", "x cube")], "that nothing tells"),
        ([node("Concat", "x x", axis=2)], "has the axis 2 of 2"),
        ([node("Split", "x", "y", "z", axis=-3, num_outputs=2)], "has the axis -3 of 2"),
        ([node("Softmax", "row", axis=1)], "has the axis 1 of 1"),
        ([node("Gather", "row one", axis=1)], "has the axis 1 of 1"),
        ([node("Transpose", "x", perm=[0, 0])], "turns 2 axes by [0, 0]"),
        ([node("Gemm", "x cube")], "multiplies what is no matrix"),
        ([node("Add", "x later"), node("Neg", "x", "later")], "reads 'later' before anything"),
        ([node("Neg", "x", "row")], "makes the value 'row' a second time"),
        ([node("Unsqueeze", "x axis", "a")] + [node("Gather", "a a", "b")]
         + [node("Gather", "b a"), node("Gather", "y b", "z")], "of 11 axes"),
        ([node("SkipSimplifiedLayerNormalization", "x x row", "y", "mean",
               domain="com.microsoft")], "has an output that no kernel makes"),
        ([node("If", "one", then_branch=inner(node("Neg", "x", "a")),
               else_branch=inner(node("Neg", "row", "b")))], "other ranks in each of its branches"),
        ([node("If", "one", then_branch=inner(node("Neg", "x", "x")),
               else_branch=inner(node("Neg", "x", "b")))], "makes the value 'x' a second time"),
        ([node("TTTMemory", "x", "y", "present", domain=OURS), node("Neg", "present", "z")],
         "lacks an input"),
    ],
)  # fmt: skip
def test_what_is_not_told_or_does_not_fit_is_refused_by_name(
    tmp_path: Path, nodes: list[onnx.NodeProto], words: str
) -> None:
    assert words in said_of(tmp_path, *nodes)


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([node("Reshape", "x shape")], (None, None)),
        ([node("Shape", "cube", "s", start=1), node("Reshape", "x s")], (None, None)),
        ([node("Shape", "x", "s"), node("Concat", "s axis", "t", axis=0), node("Reshape", "x t")],
         (None,) * 3),
        ([node("Gather", "x axis", axis=1)], (2, 1)),
        ([node("MatMul", "x row")], (2,)),
        ([node("MatMul", "row row")], ()),
        ([node("Where", "x one cube")], (1, 2, None)),
        ([node("Squeeze", "one")], ()),
        ([node("ReduceSum", "cube axes", keepdims=0)], (None,)),
        ([node("ReduceSum", "cube one")], (None,) * 3),
        ([node("Constant", "", "a", value_ints=[-1]), node("Squeeze", "x a")], (None,)),
        ([node("Transpose", "x", perm=[1, 0])], (3, 2)),
        ([node("If", "one", then_branch=inner(node("Neg", "x", "a")),
               else_branch=inner(node("Reshape", "x shape", "b")))], (None, None)),
        ([node("QuantisedMatMul", "cube row row", domain=OURS)], (None,) * 3),
    ],
)  # fmt: skip
def test_shapes_are_found_as_far_as_they_are_told(
    tmp_path: Path, nodes: list[onnx.NodeProto], shape: tuple[int | None, ...]
) -> None:
    assert shapes_of(tmp_path, *nodes) == {"y": shape}


@pytest.mark.parametrize("operator", ["Max", "Min", "Add", "Concat", "Identity"])
@pytest.mark.parametrize("where", ["body", "branch", "branch not taken"])
def test_input_that_a_caller_leaves_out_is_refused_by_name(
    tmp_path: Path, operator: str, where: str
) -> None:
    """But by a Concat in a branch for when it is there, as exports hold it."""
    attributes = {"axis": 0} if operator == "Concat" else {}
    inputs = "bias" if operator == "Identity" else "x bias"
    odd = node(operator, inputs, **attributes)
    condition = node("OptionalHasElement", "bias" if where == "branch not taken" else "x", "told")
    other = inner(node("Neg", "x", "z"))
    nodes = [odd] if where == "body" else [
        condition, node("If", "told", then_branch=inner(odd), else_branch=other)
    ]  # fmt: skip
    body = function(["x", "numbers", "scales", "bias"], ["y"], *nodes)
    call = node("QuantisedMatMul", "x row row", domain=OURS)
    if operator == "Concat" and where == "branch not taken":
        assert shapes_of(tmp_path, call, body=body) == {"y": (None, None)}
    else:
        assert "lacks an input" in said_of(tmp_path, call, body=body)


def test_function_makes_what_the_kernel_makes(tmp_path: Path) -> None:
    body = function(["x", "numbers"], ["y"], node("Unsqueeze", "x numbers"))
    call = node("QuantisedMatMul", "x axis", domain=OURS)
    assert "makes 'y' otherwise than its function" in said_of(tmp_path, call, body=body)


def test_numbers_that_readers_may_take_from_elsewhere_are_not_known(tmp_path: Path) -> None:
    taken = node("Squeeze", "x a")
    for change in ("listed too", "elsewhere", "other type"):
        tensor = numpy_helper.from_array(np.array([0]), "a")
        if change == "listed too":
            tensor.int64_data.append(0)
        elif change == "elsewhere":
            tensor.data_location = TensorProto.EXTERNAL
        else:
            tensor.data_type = TensorProto.UINT64
        held = helper.make_node("Constant", [], ["a"], value=tensor)
        assert "takes away axes that nothing tells" in said_of(tmp_path, held, taken), change
    assert shapes_of(
        tmp_path,
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(np.array([0]))),
        taken,
    ) == {"y": (None,)}
    listed = helper.make_tensor("a", TensorProto.INT64, [1], [-1])
    assert listed.int64_data and shapes_of(
        tmp_path, helper.make_node("Constant", [], ["a"], value=listed), taken
    ) == {"y": (None,)}
