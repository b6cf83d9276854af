"""Look through a model.onnx byte by byte before ONNX Runtime sees it.

It knows the protobuf wire format and the few fields that could do harm or carry the manifest; it
knows nothing of what a graph computes. Field numbers: onnx.proto3 of the ONNX standard.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from allmem_runtime.errors import ModelFileError

MAX_GRAPH_BYTES = (1 << 31) - 1  # protobuf itself reads no more
MAX_NODES = 200_000
MAX_DEPTH = 24  # messages in messages; a graph in a node takes three levels
MAX_FIELDS = 4_000_000  # bounds the time of the walk
MAX_NAME_BYTES = 1 << 12
MAX_METADATA_BYTES = 1 << 21

OPERATOR_DOMAIN = "ai.allmem"
ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft", OPERATOR_DOMAIN})

_REMEDY = "Export the model again, or fetch an intact copy."

# Which fields hold messages worth entering, and which hold names worth reading.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 14: "metadata", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "input", 12: "output", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
}  # fmt: skip
_NAMES: dict[str, dict[int, str]] = {
    "node": {1: "input", 2: "output", 4: "op_type", 7: "domain"},
    "function": {1: "name", 10: "domain"},
    "opset": {1: "domain"},
    "metadata": {1: "key", 2: "value"},
    "external": {1: "key", 2: "value"},
    "input": {1: "name"},
    "output": {1: "name"},
}


@dataclass(frozen=True, slots=True)
class Scan:
    """What a graph file says of itself.

    Args:
        metadata: the model's metadata properties.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs.
        external: external data files by name and the bytes they must have at least.
        nodes: nodes in the graph, its subgraphs and its functions.
        operators: names of the nodes of our own domain.
        in_place: state inputs that a single node of our domain both consumes and renews; only
            for these may input and output share one buffer.
    """

    metadata: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external: dict[str, int]
    nodes: int
    operators: frozenset[str]
    in_place: frozenset[str]


@dataclass(slots=True)
class _Found:
    """What the walk has gathered so far."""

    metadata: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    external: dict[str, int] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)
    consumers: dict[str, list[int]] = field(default_factory=dict)
    producers: dict[str, int] = field(default_factory=dict)
    ours: set[int] = field(default_factory=set)
    nodes: int = 0
    fields: int = 0


def scan(path: Path) -> Scan:
    """Walk ``path`` from the first byte to the last.

    Raises:
        ModelFileError: the file is missing, too large, not well-formed, or holds something that
            this runtime does not allow; the text names the file and what was found.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise ModelFileError(f"{path} is empty.", _REMEDY)
            if size > MAX_GRAPH_BYTES:
                raise ModelFileError(
                    f"{path} has {size} bytes; a graph may have {MAX_GRAPH_BYTES}.",
                    "Keep the weights in model.onnx.data, as `allmem export` does.",
                )
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from None
    return _Walk(path).scan(memoryview(content))


class _Walk:
    """One pass over one file; holds its name for the messages and the counts for the limits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = _Found()

    def fail(self, what: str) -> NoReturn:
        raise ModelFileError(f"{self.path}: {what}.", _REMEDY)

    def scan(self, view: memoryview) -> Scan:
        self.message("model", view, 0, top=True)
        found = self.found
        if not found.nodes or not found.outputs:
            self.fail("not an ONNX model with a graph")
        in_place = {
            name
            for name in found.inputs
            if name.startswith("past.") and self.renewed_by_its_only_consumer(name)
        }
        return Scan(
            metadata=found.metadata,
            inputs=tuple(found.inputs),
            outputs=tuple(found.outputs),
            external=found.external,
            nodes=found.nodes,
            operators=frozenset(found.operators),
            in_place=frozenset(in_place),
        )

    def renewed_by_its_only_consumer(self, name: str) -> bool:
        consumers = self.found.consumers.get(name, [])
        present = "present." + name.removeprefix("past.")
        return (
            len(consumers) == 1
            and consumers[0] in self.found.ours
            and self.found.producers.get(present) == consumers[0]
        )

    def message(self, kind: str, view: memoryview, depth: int, top: bool) -> dict[str, list[str]]:
        """Walk one message and return its names; ``top`` says that it is of the main graph."""
        if depth > MAX_DEPTH:
            self.fail(f"graphs are nested deeper than {MAX_DEPTH} messages")
        messages, names = _MESSAGES.get(kind, {}), _NAMES.get(kind, {})
        record: dict[str, list[str]] = {}
        external: list[tuple[str, str]] = []
        if kind == "training":
            self.fail("it holds training information, which a model for reading never does")
        for number, value in self.fields(view):
            if number in messages or number in names:
                if isinstance(value, int):
                    self.fail(f"field {number} of a {kind} is a number where bytes belong")
            else:
                continue
            if number in messages:
                child = messages[number]
                apart = kind == "function" or (kind == "attribute" and child == "graph")
                names_inside = self.message(child, value, depth + 1, top and not apart)
                if child == "external":
                    external += zip(
                        names_inside.get("key", []), names_inside.get("value", []), strict=False
                    )
            else:
                limit = MAX_METADATA_BYTES if kind == "metadata" else MAX_NAME_BYTES
                record.setdefault(names[number], []).append(self.text(kind, value, limit))
        self.record(kind, record, top)
        if external:
            self.external(external)
        return record

    def external(self, entries: list[tuple[str, str]]) -> None:
        """Note which file a tensor lies in and how far it reaches."""
        for key, _ in entries:
            if key.startswith("prepacked"):
                raise ModelFileError(
                    f"{self.path} holds weights laid out for one CPU ({key[:40]!r}), which are "
                    "only right where they were made.",
                    "Export the model again; `allmem prepare` lays its weights out here.",
                )
        places = [value for key, value in entries if key == "location"]
        numbers = {"offset": 0, "length": 0}
        for key, value in entries:
            if key in numbers:
                if not (value.isascii() and value.isdigit() and len(value) < 16):
                    self.fail(f"external data has the {key} {value[:40]!r}")
                numbers[key] = int(value)
        for place in places:
            reach = numbers["offset"] + numbers["length"]
            self.found.external[place] = max(self.found.external.get(place, 0), reach)

    def record(self, kind: str, record: dict[str, list[str]], top: bool) -> None:
        """Keep what a finished message says, and refuse what is not allowed."""
        found = self.found
        if kind == "node":
            self.node(record, top)
        elif kind in ("opset", "function"):
            self.domain(kind, record)
        elif kind == "metadata":
            for key, value in zip(record.get("key", []), record.get("value", []), strict=False):
                if key in found.metadata:
                    self.fail(f"the metadata key {key!r} is there twice")
                found.metadata[key] = value
        elif kind == "input" and top:
            found.inputs += record.get("name", [])
        elif kind == "output" and top:
            found.outputs += record.get("name", [])

    def node(self, record: dict[str, list[str]], top: bool) -> None:
        found, number = self.found, self.found.nodes
        found.nodes += 1
        if found.nodes > MAX_NODES:
            self.fail(f"it has more than {MAX_NODES} nodes")
        domain = self.domain("node " + ", ".join(record.get("op_type", [])), record)
        if top and domain == OPERATOR_DOMAIN:
            found.ours.add(number)
            found.operators.update(record.get("op_type", []))
        for name in record.get("input", []):
            # Nodes of subgraphs count as consumers too: they read names of the graph around them.
            found.consumers.setdefault(name, []).append(number)
        if top:
            for name in record.get("output", []):
                found.producers[name] = number

    def domain(self, what: str, record: dict[str, list[str]]) -> str:
        for domain in record.get("domain", []):
            if domain not in ALLOWED_DOMAINS:
                raise ModelFileError(
                    f"{self.path}: {what} is of the operator domain {domain!r}; allowed: "
                    + ", ".join(sorted(repr(name) for name in ALLOWED_DOMAINS))
                    + ".",
                    "Open only models that `allmem export` wrote.",
                )
        return (record.get("domain") or [""])[-1]

    def text(self, kind: str, view: memoryview, limit: int) -> str:
        if len(view) > limit:
            self.fail(f"a text of {len(view)} bytes in a {kind}; at most {limit} are allowed")
        try:
            return bytes(view).decode()
        except UnicodeDecodeError:
            self.fail(f"a text in a {kind} is not UTF-8")

    def fields(self, view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """The fields of a message in order: its number, and an integer or bytes."""
        at, end = 0, len(view)
        while at < end:
            self.found.fields += 1
            if self.found.fields > MAX_FIELDS:
                self.fail(f"it has more than {MAX_FIELDS} fields")
            # Nearly all keys and lengths are of one byte, and the walk is a part of every start.
            key = view[at]
            at += 1
            if key > 0x7F:
                key, at = self.varint(view, at - 1)
            number, wire = key >> 3, key & 7
            if number == 0:
                self.fail("a field has the number 0, so this is no ONNX file")
            if wire == 0:
                value, at = self.varint(view, at)
                yield number, value
                continue
            if wire == 2:
                if at < end and view[at] < 0x80:
                    length = view[at]
                    at += 1
                else:
                    length, at = self.varint(view, at)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                self.fail(f"wire type {wire} is unknown, so this is no ONNX file")
            if length > end - at:
                self.fail(f"it is cut off: a field wants {length} bytes, {end - at} are left")
            yield number, view[at : at + length]
            at += length

    def varint(self, view: memoryview, at: int) -> tuple[int, int]:
        """An integer of up to ten bytes, low bits first, and where the next byte is."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(view):
                self.fail("it is cut off in the middle of a number")
            byte = view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        self.fail("a number is longer than ten bytes, so this is no ONNX file")
