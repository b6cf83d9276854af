"""The nodes of a graph and of its functions, with what the shapes of their values depend on.

It reads a file that ``onnx_scan`` has walked, so all in it is well-formed and there once.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path

from allmem_runtime.files.protobuf import Fields, varint

Dims = tuple[int, ...]

MOST_AXES = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that a file holds.

    Attributes:
        dims: its sizes.
        numbers: what it holds, if that is a list of a few integers, as of axes; else None.
    """

    dims: Dims
    numbers: Dims | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node.

    Attributes:
        operator: its name.
        domain: of the operator; empty for the standard one.
        overload: which of the functions of that name it means.
        inputs: names of values; empty where one is left out.
        outputs: the same.
        numbers: attributes that are integers or tensors, by name.
        branches: attributes that are graphs, by name.
    """

    operator: str
    domain: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, int | Dims | Tensor]
    branches: dict[str, Graph]


@dataclass(slots=True)
class Graph:
    """A graph, or the body of a function.

    Attributes:
        inputs: names of values that it is given.
        outputs: names of values that it makes for others.
        constants: the tensors that it holds, with their names.
        nodes: in the order of the file.
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constants: list[tuple[str, Tensor]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a file holds.

    Attributes:
        graph: the main one.
        functions: by name and overload.
    """

    graph: Graph
    functions: dict[tuple[str, str], Graph]


def read_nodes(path: Path, most_fields: int) -> Parts:
    """Read a file that was walked.

    Args:
        path: the file.
        most_fields: as many as the walk may have met.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _Reader(Fields(most_fields)).model(memoryview(content))


def _text(value: int | memoryview) -> str:
    return "" if isinstance(value, int) else bytes(value).decode()


_INT64 = 7
_LISTED, _RAW = 7, 9
_CONTENTS = frozenset({4, 5, 6, _LISTED, _RAW, 10, 11, 13, 14})
"""Fields of a tensor that hold its numbers, or say that they are elsewhere."""


class _Reader:
    """Reads messages by the numbers of their fields. Source: onnx.proto."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def model(self, view: memoryview) -> Parts:
        graph, functions = Graph(), {}
        for number, _, value in self.fields.of(view):
            if isinstance(value, int):
                continue
            if number == 7:
                graph = self.graph(value)
            elif number == 25:
                name, body = self.function(value)
                functions[name] = body
        return Parts(graph, functions)

    def graph(self, view: memoryview) -> Graph:
        found = Graph()
        for number, _, value in self.fields.of(view):
            if isinstance(value, int):
                continue
            if number == 1:
                found.nodes.append(self.node(value))
            elif number == 5:
                found.constants.append(self.tensor(value))
            elif number in (11, 12):
                names = found.inputs if number == 11 else found.outputs
                names.append(self.name(value, 1))
        return found

    def function(self, view: memoryview) -> tuple[tuple[str, str], Graph]:
        name, overload, body = "", "", Graph()
        for number, _, value in self.fields.of(view):
            if number == 1:
                name = _text(value)
            elif number == 13:
                overload = _text(value)
            elif number in (4, 5):
                (body.inputs if number == 4 else body.outputs).append(_text(value))
            elif number == 7 and not isinstance(value, int):
                body.nodes.append(self.node(value))
        return (name, overload), body

    def node(self, view: memoryview) -> Node:
        inputs, outputs = [], []
        texts = {4: "", 7: "", 8: ""}
        numbers: dict[str, int | Dims | Tensor] = {}
        branches: dict[str, Graph] = {}
        for number, _, value in self.fields.of(view):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number in texts:
                texts[number] = _text(value)
            elif number == 5 and not isinstance(value, int):
                name, given = self.attribute(value)
                if isinstance(given, Graph):
                    branches[name] = given
                elif given is not None:
                    numbers[name] = given
        return Node(texts[4], texts[7], texts[8], tuple(inputs), tuple(outputs), numbers, branches)

    def attribute(self, view: memoryview) -> tuple[str, int | Dims | Tensor | Graph | None]:
        name, several = "", []
        given: int | Dims | Tensor | Graph | None = None
        for number, _, value in self.fields.of(view):
            if number == 1:
                name = _text(value)
            elif number == 3 and isinstance(value, int):
                given = _signed(value)
            elif number == 8:
                several += _numbers(value)
                given = tuple(several)
            elif number == 20 and value == 7:  # numbers, of which there may be none
                given = tuple(several)
            elif number == 5 and not isinstance(value, int):
                given = self.tensor(value)[1]
            elif number == 6 and not isinstance(value, int):
                given = self.graph(value)
        return name, given

    def tensor(self, view: memoryview) -> tuple[str, Tensor]:
        name, kind = "", 0
        dims: list[int] = []
        listed: list[int] = []
        places = set()
        for number, _, value in self.fields.of(view):
            if number == 1:
                dims += _numbers(value)
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 8:
                name = _text(value)
            elif number in _CONTENTS:
                places.add(number)
                listed += _few(number, value)
        # Of two places readers take either; and what lies in another file nobody has looked at.
        sure = kind == _INT64 and len(places) == 1 and len(dims) == 1
        whole = sure and dims[0] == len(listed) <= MOST_AXES
        return name, Tensor(tuple(dims), tuple(listed) if whole else None)

    def name(self, view: memoryview, wanted: int) -> str:
        for number, _, value in self.fields.of(view):
            if number == wanted:
                return _text(value)
        return ""


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _few(number: int, value: int | memoryview) -> list[int]:
    """The integers that such a field holds, if they are few."""
    if isinstance(value, memoryview) and len(value) > 10 * MOST_AXES:
        return []
    if number == _LISTED:
        return _numbers(value)
    if number == _RAW and isinstance(value, memoryview) and not len(value) % 8:
        return list(struct.unpack(f"<{len(value) // 8}q", value))
    return []


def _numbers(value: int | memoryview) -> list[int]:
    """One integer, or those packed in one field."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        found.append(_signed(number))
    return found
