"""What a graph file says of itself, by the onnx package: a second reader beside our walk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from allmem_runtime.files import onnx_scan


def check_scan(path: Path) -> onnx_scan.Scan:
    """Walk a graph file, and see that protobuf reads the same in it.

    Raises:
        ModelFileError: the walk refuses the file.
        AssertionError: it does not, and protobuf reads something else.
    """
    found = onnx_scan.scan(path)
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError:
        return found  # ONNX Runtime refuses it in the same way
    graph = model.graph
    assert found.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert found.inputs == tuple(value.name for value in graph.input)
    assert found.outputs == tuple(value.name for value in graph.output)
    assert found.external == _external(model)
    nodes = [m for m in _messages(model) if isinstance(m, onnx.NodeProto)]
    assert found.nodes == len(nodes)
    ours = (node.op_type for node in graph.node if node.domain == onnx_scan.OPERATOR_DOMAIN)
    assert found.operators == set(ours)
    domains = {node.domain for node in nodes}
    domains |= {function.domain for function in model.functions}
    domains |= {m.domain for m in _messages(model) if isinstance(m, onnx.OperatorSetIdProto)}
    assert domains <= onnx_scan.ALLOWED.keys()
    assert found.in_place == _in_place(graph, nodes)
    return found


def _messages(message: Message) -> Iterator[Message]:
    """All messages in a message, itself included."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _external(model: onnx.ModelProto) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in _messages(model):
        if isinstance(tensor, onnx.TensorProto) and tensor.external_data:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert len(entries) == len(tensor.external_data)
            reach = int(entries.get("offset", 0)) + int(entries.get("length", 0))
            place = entries["location"]
            found[place] = max(found.get(place, 0), reach)
    return found


def _in_place(graph: onnx.GraphProto, nodes: list[Message]) -> set[str]:
    """State inputs that one node of ours alone consumes, which also makes the renewed state."""
    found = set()
    for name in {value.name for value in graph.input if value.name.startswith("past.")}:
        consumers = [node for node in nodes for used in node.input if used == name]
        present = "present." + name.removeprefix("past.")
        makers = [node for node in graph.node if present in node.output]
        ours = [node for node in consumers if node.domain == onnx_scan.OPERATOR_DOMAIN]
        if len(consumers) == 1 and ours and makers and makers[-1] is ours[0]:
            found.add(name)
    return found
