"""The walk through a graph file finds what matters and nothing that is not there."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import stand_in
from onnx import TensorProto, helper

from allmem_runtime import spec
from allmem_runtime.errors import ModelFileError
from allmem_runtime.files import onnx_scan


def save(folder: Path, nodes: list[onnx.NodeProto], **extra: object) -> Path:
    value = helper.make_tensor_value_info
    names = sorted({name for n in nodes for name in n.input if name.startswith("past.")})
    inputs = [value("x", TensorProto.FLOAT, [1])] + [
        value(name, TensorProto.FLOAT, [1]) for name in names
    ]
    outputs = [value("y", TensorProto.FLOAT, [1])] + [
        value(name.replace("past", "present", 1), TensorProto.FLOAT, [1]) for name in names
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.allmem", 1)],
        **extra,  # type: ignore[arg-type]
    )
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def ours(inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    return helper.make_node("TTTMemory", inputs, outputs, domain="ai.allmem")


def test_scan_agrees_with_the_onnx_package(toy_dir: Path) -> None:
    path = toy_dir / "model.onnx"
    model = onnx.load(path, load_external_data=False)

    found = onnx_scan.scan(path)

    assert found.inputs == tuple(i.name for i in model.graph.input)
    assert found.outputs == tuple(o.name for o in model.graph.output)
    assert found.nodes == len(model.graph.node)
    assert found.metadata == {p.key: p.value for p in model.metadata_props}
    size = (toy_dir / spec.WEIGHTS_FILE).stat().st_size
    assert found.external == {spec.WEIGHTS_FILE: size}


def test_state_renewed_by_its_only_consumer_may_share_a_buffer(tmp_path: Path) -> None:
    path = save(tmp_path, [ours(["x", "past.0.weights"], ["y", "present.0.weights"])])

    found = onnx_scan.scan(path)

    assert found.in_place == {"past.0.weights"}
    assert found.operators == {"TTTMemory"}


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(
            [
                ours(["x", "past.0.weights"], ["z", "present.0.weights"]),
                helper.make_node("Add", ["z", "past.0.weights"], ["y"]),
            ],
            id="a second consumer would see the new state",
        ),
        pytest.param(
            [
                helper.make_node("Identity", ["past.0.weights"], ["present.0.weights"]),
                helper.make_node("Neg", ["x"], ["y"]),
            ],
            id="a standard operator gives no promise",
        ),
        pytest.param(
            [
                ours(["x", "past.0.weights"], ["y"]),
                helper.make_node("Neg", ["x"], ["present.0.weights"]),
            ],
            id="another node writes the new state",
        ),
        pytest.param(
            [ours(["past.0.weights", "past.0.weights"], ["y", "present.0.weights"])],
            id="one node reads it through two inputs",
        ),
    ],
)
def test_no_buffer_is_shared_without_proof(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    assert onnx_scan.scan(save(tmp_path, nodes)).in_place == frozenset()


def test_consumer_in_a_branch_counts_as_one(tmp_path: Path) -> None:
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Neg", ["past.0.weights"], ["o"])], "b", [], [out])
    nodes = [
        ours(["x", "past.0.weights"], ["c", "present.0.weights"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]

    found = onnx_scan.scan(save(tmp_path, nodes))

    assert found.in_place == frozenset()
    assert found.nodes == 4


def test_function_bodies_are_walked_but_are_not_the_graph(tmp_path: Path) -> None:
    body = helper.make_function(
        "ai.allmem",
        "TTTMemory",
        ["a", "past.0.weights"],
        ["b", "present.0.weights"],
        [
            helper.make_node("Neg", ["a"], ["b"]),
            helper.make_node("Neg", ["past.0.weights"], ["present.0.weights"]),
        ],
        [helper.make_opsetid("", 21)],
    )
    nodes = [ours(["x", "past.0.key"], ["y", "present.0.key"])]

    found = onnx_scan.scan(save(tmp_path, nodes, functions=[body]))

    assert found.nodes == 3
    assert found.in_place == {"past.0.key"}


@pytest.mark.parametrize("domain", ["ai.evil", "com.microsoft.nchwc", "AI.ALLMEM", "ai.onnx.ml"])
@pytest.mark.parametrize("where", ["node", "branch", "function", "function node"])
def test_node_of_another_domain_is_refused(tmp_path: Path, domain: str, where: str) -> None:
    evil = helper.make_node("Run", ["x"], ["y"], domain=domain)
    functions = []
    nodes = [evil]
    if where == "branch":
        branch = helper.make_graph([evil], "b", [], [])
        nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    elif where == "function":
        nodes = [helper.make_node("Neg", ["x"], ["y"])]
        functions = [helper.make_function(domain, "F", [], [], [], [])]
    elif where == "function node":
        nodes = [helper.make_node("Neg", ["x"], ["y"])]
        functions = [helper.make_function("ai.allmem", "F", ["x"], ["y"], [evil], [])]

    with pytest.raises(ModelFileError, match="model.onnx") as caught:
        onnx_scan.scan(save(tmp_path, nodes, functions=functions))
    assert repr(domain) in caught.value.message


def test_deeply_nested_graphs_are_refused(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [], [])
    for _ in range(onnx_scan.MAX_DEPTH):
        node = helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
        if graph.ByteSize() > 1 << 20:
            break

    with pytest.raises(ModelFileError, match="nested deeper"):
        onnx_scan.scan(save(tmp_path, list(graph.node)))


def test_too_many_nodes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_scan, "MAX_NODES", 10)
    nodes = [helper.make_node("Neg", ["x"], ["y"])] * 11

    with pytest.raises(ModelFileError, match="more than 10 nodes"):
        onnx_scan.scan(save(tmp_path, nodes))


def test_endless_fields_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_scan, "MAX_FIELDS", 1000)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xd2\x01\x00" * 5000)

    with pytest.raises(ModelFileError, match="more than 1000 fields"):
        onnx_scan.scan(path)


def test_large_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(onnx_scan.MAX_GRAPH_BYTES + 1)

    with pytest.raises(ModelFileError, match="a graph may have"):
        onnx_scan.scan(path)


def test_stand_in_is_what_it_claims(toy_dir: Path) -> None:
    onnx.checker.check_model(str(toy_dir / "model.onnx"))
    assert stand_in.manifest({}).state.nbytes < 1 << 14
