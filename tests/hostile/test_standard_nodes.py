"""Nodes of ONNX Runtime's operators as no exporter writes them: refused by name or run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.onnx_scan import scan
from tests.hostile import watched
from tests.hostile.standard_nodes import OPERATORS, made

NODES = 1500
"""Some thirty of each operator; `python -m tests.hostile.standard_nodes` runs more."""


def test_generated_nodes_end_no_process() -> None:
    found = watched.watch(
        "tests.hostile.standard_nodes",
        0,
        NODES,
        watched.environment(None, sanitized=False),
        patience=120,
    )
    assert not found.failures, "\n".join(
        f"{made(failure.seed)[0].graph.node}\n{failure.report}" for failure in found.failures[:3]
    )
    assert found.done == NODES and NODES / 3 < found.ran < NODES


def test_each_operator_is_among_the_generated_nodes() -> None:
    count = Counter(
        (node.domain, node.op_type) for seed in range(NODES) for node in made(seed)[0].graph.node
    )
    assert set(count) == set(OPERATORS) and min(count.values()) > 8


def graph_file(
    tmp_path: Path,
    *nodes: onnx.NodeProto,
    functions: tuple[onnx.FunctionProto, ...] = (),
    opset: int = 20,
) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes), "g", [value("x", TensorProto.FLOAT, [4])], [value("y", TensorProto.FLOAT, [4])]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.allmem", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def said_of(tmp_path: Path, *nodes: onnx.NodeProto, **options: Any) -> str:
    with pytest.raises(ModelFileError) as caught:
        scan(graph_file(tmp_path, *nodes, **options))
    assert caught.value.hint == "Open only models that `allmem export` wrote."
    return caught.value.message


@pytest.mark.parametrize("count", [1, 3, -1, 1 << 40])
def test_split_into_another_number_of_parts_is_refused_by_name(tmp_path: Path, count: int) -> None:
    node = helper.make_node("Split", ["x"], ["y", "z"], axis=0, num_outputs=count)
    assert f"'Split' of the domain '' has num_outputs {count}" in said_of(tmp_path, node)


@pytest.mark.parametrize("operator", ["Max", "Min", "Add", "Concat"])
def test_missing_input_is_refused_by_name(tmp_path: Path, operator: str) -> None:
    node = helper.make_node(operator, ["x", "", "x"][: 3 if operator == "Concat" else 2], ["y"])
    assert f"{operator!r} of the domain '' lacks an input" in said_of(tmp_path, node)


def test_functions_are_the_bodies_of_our_operators(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.allmem", 1)]
    plain, call = (
        helper.make_node(*node, domain=domain)
        for *node, domain in (("Neg", ["x"], ["y"], ""), ("TTTMemory", ["x"], ["y"], "ai.allmem"))
    )

    def function(domain: str, name: str, node: onnx.NodeProto) -> onnx.FunctionProto:
        return helper.make_function(domain, name, ["x"], ["y"], [node], opsets)

    one = function("ai.allmem", "TTTMemory", plain)
    for functions, words in (
        ((function("", "Neg", plain),), "the function 'Neg' is not of the domain 'ai.allmem'"),
        ((function("ai.allmem", "Other", plain),), "the function 'Other' is none of an operator"),
        ((one, one), "the function 'TTTMemory' is none of an operator, or a second one"),
        ((function("ai.allmem", "SlidingWindowAttention", call),), "is in a function"),
    ):
        assert words in said_of(tmp_path, plain, functions=functions)
    other = function("ai.allmem", "TTTMemory", plain)
    other.overload = "other windows"
    scan(graph_file(tmp_path, plain, functions=(one, other)))


@pytest.mark.parametrize("opset", [1, 7, 19, 22, 99])
def test_operators_of_another_version_are_refused_by_name(tmp_path: Path, opset: int) -> None:
    node = helper.make_node("Neg", ["x"], ["y"])
    assert f"operators of version {opset} of the domain ''" in said_of(tmp_path, node, opset=opset)


@pytest.mark.parametrize(
    ("operator", "attributes", "words"),
    [
        ("Softmax", {"axis": 9}, "has axis 9"),
        ("Softmax", {"axis": 1.0}, "has axis 1.0"),
        ("Softmax", {"axis": [1]}, "has axis (1,)"),
        ("Softmax", {"axis": "x" * 5000}, "has axis 'xxxx"),
        ("Softmax", {"odd\x1b[2J": 1}, r"has an attribute 'odd\x1b[2J'"),
        ("Cast", {"to": 8}, "has to 8"),
        ("Gemm", {"alpha": float("nan")}, "has alpha nan"),
        ("Transpose", {"perm": [0, 1 << 40]}, "has perm (0, 1099511627776)"),
    ],
)
def test_attribute_out_of_range_is_refused_by_name(
    tmp_path: Path, operator: str, attributes: dict[str, object], words: str
) -> None:
    names = ["x", "x"] if operator == "Gemm" else ["x"]
    said = said_of(tmp_path, helper.make_node(operator, names, ["y"], **attributes))
    assert words in said and len(said) < 400


def test_attribute_of_two_values_is_refused(tmp_path: Path) -> None:
    """Which of them counts, readers disagree upon."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    node.attribute[0].f = 1.0
    path = tmp_path / "model.onnx"
    graph = helper.make_graph([node], "g", [], [])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelFileError, match="'axis' has not one value of its type"):
        scan(path)
