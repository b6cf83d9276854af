"""Encodings that readers take for different graphs are refused, whatever they would say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import onnx
import pytest
from hostile.fuzz.mutate_protobuf import Node, mutated_message, parsed, written
from hostile.fuzz.what_protobuf_says import check_scan
from onnx import TensorProto, helper

from allmem_runtime.errors import ModelFileError
from allmem_runtime.files import onnx_scan
from allmem_runtime.files.onnx_fields import FIELDS

GRAPH, NODES, TENSORS, EXTERNAL, VALUE = 7, 1, 5, 13, 2
MODEL = onnx.ModelProto.DESCRIPTOR


def example() -> bytes:
    """A graph with one node of ours, a constant with an external file and metadata."""
    value = helper.make_tensor_value_info
    node = helper.make_node("TTTMemory", ["x", "w"], ["y"], domain="ai.allmem")
    floats = [value(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", floats[:1], floats[1:])
    tensor = graph.initializer.add(name="w", data_location=TensorProto.EXTERNAL, dims=[1])
    for key, text in (("location", "model.onnx.data"), ("offset", "8"), ("length", "16")):
        tensor.external_data.add(key=key, value=text)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.metadata_props.add(key="allmem.manifest", value="{}")
    return model.SerializeToString()


Change = Callable[[list[Node]], None]


def inside(nodes: list[Node], *numbers: int) -> list[Node]:
    """The fields of the first message at these field numbers."""
    for number in numbers:
        found = next(node for node in nodes if node.number == number).value
        assert isinstance(found, list)
        nodes = found
    return nodes


def again(*place: int, value: bytes) -> Change:
    """A second value of the field that stands last in ``place``."""

    def change(model: list[Node]) -> None:
        fields = inside(model, *place[:-1])
        fields.append(Node(place[-1], 2, value))

    return change


def field(*place: int, **values: object) -> Change:
    """Another way to write the field that stands last in ``place``."""

    def change(model: list[Node]) -> None:
        one = next(n for n in inside(model, *place[:-1]) if n.number == place[-1])
        for name, value in values.items():
            setattr(one, name, value)

    return change


def split_graph(model: list[Node]) -> None:
    """Protobuf merges the two halves."""
    whole = next(node for node in model if node.number == GRAPH)
    assert isinstance(whole.value, list)
    model.append(Node(GRAPH, 2, whole.value[1:], whole.kind))
    whole.value = whole.value[:1]


def added(*place: int, node: Node) -> Change:
    return lambda model: inside(model, *place).append(node)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(split_graph, "field 7 of a model is there twice", id="graph in two parts"),
        pytest.param(
            again(GRAPH, TENSORS, EXTERNAL, VALUE, value=b"../secret"),
            "field 2 of a external is there twice",
            id="second file name",
        ),
        pytest.param(again(GRAPH, NODES, 7, value=b"ai.evil"), "is there twice", id="domain twice"),
        pytest.param(
            added(GRAPH, TENSORS, node=Node(8, 2, b"v")),
            "field 8 of a tensor is there twice",
            id="name twice",
        ),
        pytest.param(field(GRAPH, longer=(1, 0)), "longer than it must be", id="over-long tag"),
        pytest.param(field(GRAPH, longer=(0, 1)), "longer than it must be", id="over-long length"),
        pytest.param(field(GRAPH, NODES, longer=(4, 0)), "longer", id="tag of five bytes"),
        pytest.param(field(GRAPH, high=1), "number is out of range", id="tag beyond 32 bits"),
        pytest.param(field(1, longer=(0, 3)), "longer than it must be", id="over-long value"),
        pytest.param(field(1, value=1 << 64), "longer than it must be", id="value of 65 bits"),
        pytest.param(field(1, wire=2, value=b"x"), "wire type 2, not 0", id="bytes for a number"),
        pytest.param(field(GRAPH, wire=0, value=1), "wire type 0, not 2", id="number for bytes"),
        pytest.param(added(node=Node(GRAPH, 3, b"")), "wire type 3 is unknown", id="group"),
        pytest.param(added(node=Node(30, 2, b"x")), "field 30 of a model is unknown", id="unknown"),
        pytest.param(added(GRAPH, node=Node(99, 0, 1)), "field 99 of a graph", id="unknown inside"),
        pytest.param(
            added(GRAPH, TENSORS, EXTERNAL, node=Node(1, 2, b"offset")), "twice", id="key twice"
        ),
        pytest.param(
            lambda model: inside(model, GRAPH, TENSORS, EXTERNAL).pop(),
            "lacks its key or its value",
            id="key without a value",
        ),
        pytest.param(
            field(GRAPH, TENSORS, EXTERNAL, 1, value=b"offset"),
            "external data is there twice",
            id="entry twice",
        ),
        pytest.param(
            field(GRAPH, TENSORS, EXTERNAL, 1, value=b"basepath"),
            "unknown entry 'basepath'",
            id="unknown entry",
        ),
    ],
)
def test_what_readers_could_take_otherwise_is_refused(
    tmp_path: Path, change: Change, said: str
) -> None:
    nodes = parsed(example(), MODEL)
    change(nodes)
    path = tmp_path / "model.onnx"
    path.write_bytes(written(nodes))
    with pytest.raises(ModelFileError, match=said):
        onnx_scan.scan(path)


def test_plain_example_is_read_as_protobuf_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(example())
    assert written(parsed(example(), MODEL)) == example()

    found = check_scan(path)

    assert found.external == {"model.onnx.data": 24}
    assert found.operators == {"TTTMemory"}


def test_no_mutation_is_read_otherwise_than_protobuf_reads_it(tmp_path: Path) -> None:
    path, accepted = tmp_path / "model.onnx", 0
    for number in range(600):
        path.write_bytes(mutated_message(example(), MODEL, Random(number)))
        try:
            check_scan(path)
        except ModelFileError:
            continue
        accepted += 1
    assert 50 < accepted < 550


KINDS = {
    "model": onnx.ModelProto, "opset": onnx.OperatorSetIdProto, "graph": onnx.GraphProto,
    "metadata": onnx.StringStringEntryProto, "node": onnx.NodeProto,
    "attribute": onnx.AttributeProto, "tensor": onnx.TensorProto,
    "external": onnx.StringStringEntryProto, "sparse": onnx.SparseTensorProto,
    "input": onnx.ValueInfoProto, "output": onnx.ValueInfoProto, "function": onnx.FunctionProto,
}  # fmt: skip
WALKED = (onnx.TensorProto, onnx.NodeProto, onnx.GraphProto, onnx.FunctionProto,
          onnx.AttributeProto, onnx.SparseTensorProto, onnx.TrainingInfoProto,
          onnx.OperatorSetIdProto)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_table_of_fields_is_that_of_the_onnx_package(kind: str) -> None:
    known = KINDS[kind].DESCRIPTOR.fields_by_number
    assert FIELDS[kind].keys() == set(known)
    wires = {1: 1, 2: 5, 9: 2, 11: 2, 12: 2}  # double, float, text, message, bytes
    for number, ours in FIELDS[kind].items():
        theirs = known[number]
        assert ours.wire == wires.get(theirs.type, 0), number
        assert ours.once != theirs.is_repeated, number
        inner = theirs.message_type
        if inner is not None and inner.full_name in {m.DESCRIPTOR.full_name for m in WALKED}:
            assert ours.enters, number


def test_every_message_of_the_table_is_compared() -> None:
    assert KINDS.keys() | {"training"} == FIELDS.keys()
