"""Look through a model.onnx before ONNX Runtime sees it.

It knows the few fields that could do harm or carry the manifest, and accepts no file that another
reader could take for something else; it knows nothing of what a graph computes.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.graph_operators import ALLOWED, OPERATOR_DOMAIN, VERSIONS
from allmem_runtime.files.node_attributes import Attribute, attribute
from allmem_runtime.files.onnx_external import Extent, extent_of
from allmem_runtime.files.onnx_fields import BYTES, FIELDS
from allmem_runtime.files.protobuf import Fields, WireError

MAX_GRAPH_BYTES = (1 << 31) - 1  # protobuf itself reads no more
MAX_NODES = 200_000
MAX_DEPTH = 24  # messages in messages; a graph in a node takes three levels
MAX_FIELDS = 4_000_000  # bounds the time of the walk
MAX_NAME_BYTES = 1 << 12
MAX_METADATA_BYTES = 1 << 21

EMBEDDING = "embedding"
"""Begins the names of the tensors of the token embedding."""

_ONLY_OURS = "Open only models that `allmem export` wrote."
_REMEDY = "Export the model again, or fetch an intact copy."


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
        embedding: where the tensors of the embedding lie, by name.
    """

    metadata: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external: dict[str, int]
    nodes: int
    operators: frozenset[str]
    in_place: frozenset[str]
    embedding: dict[str, Extent]


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
    embedding: dict[str, Extent] = field(default_factory=dict)
    functions: set[tuple[str, str]] = field(default_factory=set)
    nodes: int = 0


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
        self.fields = Fields(MAX_FIELDS)
        self.in_function = False

    def fail(self, what: str) -> NoReturn:
        raise ModelFileError(f"{self.path}: {what}.", _REMEDY)

    def scan(self, view: memoryview) -> Scan:
        try:
            self.message("model", view, 0, top=True)
        except WireError as error:
            self.fail(str(error))
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
            embedding=found.embedding,
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
        if kind == "training":
            self.fail("it holds training information, which a model for reading never does")
        if kind == "function":
            self.in_function = True
        known, seen = FIELDS[kind], 0
        record: dict[str, list[str]] = {}
        external: list[tuple[str, str]] = []
        attributes: list[Attribute] = []
        for number, wire, value in self.fields.of(view):
            field = known.get(number)
            if field is None:
                self.fail(f"field {number} of a {kind} is unknown to this runtime")
            if wire != field.wire and not (wire == BYTES and field.packed):
                self.fail(f"field {number} of a {kind} has the wire type {wire}, not {field.wire}")
            if field.once:
                if seen >> number & 1:
                    self.fail(f"field {number} of a {kind} is there twice")
                seen |= 1 << number
            if isinstance(value, int):
                if field.says:
                    record.setdefault(field.says, []).append(str(value))
            elif field.enters:
                child = field.enters
                apart = kind == "function" or (kind == "attribute" and child == "graph")
                names_inside = self.message(child, value, depth + 1, top and not apart)
                if child == "external":
                    external.append(self.entry(child, names_inside))
                elif kind == "node":
                    attributes.append(attribute(self.fields.of(value)))
            elif field.says:
                limit = MAX_METADATA_BYTES if kind == "metadata" else MAX_NAME_BYTES
                record.setdefault(field.says, []).append(self.text(kind, value, limit))
        if kind == "node":
            self.node(record, attributes, top)
        else:
            self.record(kind, record, top)
        if external:
            extent = extent_of(external, self.path)
            reach = extent.offset + extent.length
            self.found.external[extent.file] = max(self.found.external.get(extent.file, 0), reach)
            if (name := record.get("name", [""])[0]).startswith(EMBEDDING):
                self.found.embedding[name] = extent
        return record

    def entry(self, kind: str, record: dict[str, list[str]]) -> tuple[str, str]:
        """Key and value, of which neither may be left out."""
        if len(record) != 2:
            self.fail(f"an entry of {kind} data lacks its key or its value")
        return record["key"][0], record["value"][0]

    def record(self, kind: str, record: dict[str, list[str]], top: bool) -> None:
        """Keep what a finished message says, and refuse what is not allowed."""
        found = self.found
        if kind == "opset":
            self.opset(record)
        elif kind == "function":
            self.function(record)
        elif kind == "metadata":
            key, value = self.entry(kind, record)
            if key in found.metadata:
                self.fail(f"the metadata key {key[:80]!r} is there twice")
            found.metadata[key] = value
        elif kind == "input" and top:
            found.inputs += record.get("name", [""])
        elif kind == "output" and top:
            found.outputs += record.get("name", [""])

    def node(self, record: dict[str, list[str]], attributes: list[Attribute], top: bool) -> None:
        found, number = self.found, self.found.nodes
        found.nodes += 1
        if found.nodes > MAX_NODES:
            self.fail(f"it has more than {MAX_NODES} nodes")
        operator = record.get("op_type", [""])[0]
        domain = self.domain(f"node {operator[:200]}", record)
        node = f"a node of the operator {operator[:200]!r} of the domain {domain!r}"
        form = ALLOWED[domain].get(operator)
        if form is None:
            self.refuse(f"it has {node}, which no export holds")
        inputs, outputs = record.get("input", []), record.get("output", [])
        if problem := form.problem(inputs, outputs, attributes):
            self.refuse(f"{node} {problem}, as none of an export")
        if self.in_function and domain == OPERATOR_DOMAIN:
            self.refuse(f"{node} is in a function")
        if top and domain == OPERATOR_DOMAIN:
            found.ours.add(number)
            found.operators.add(operator)
        for name in inputs:
            # Nodes of subgraphs count as consumers too: they read names of the graph around them.
            found.consumers.setdefault(name, []).append(number)
        if top:
            for name in outputs:
                found.producers[name] = number

    def function(self, record: dict[str, list[str]]) -> None:
        """Functions are the bodies of our operators, one of each, and of each kind of windows."""
        self.in_function = False
        name = record.get("name", [""])[0]
        if self.domain("function", record) != OPERATOR_DOMAIN:
            self.refuse(f"the function {name[:200]!r} is not of the domain {OPERATOR_DOMAIN!r}")
        body = (name, record.get("overload", [""])[0])
        if name not in ALLOWED[OPERATOR_DOMAIN] or body in self.found.functions:
            self.refuse(f"the function {name[:200]!r} is none of an operator, or a second one")
        self.found.functions.add(body)

    def opset(self, record: dict[str, list[str]]) -> None:
        domain = self.domain("opset", record)
        version = record.get("version", ["0"])[0]
        if domain in VERSIONS and version not in map(str, VERSIONS[domain]):
            self.refuse(f"it has operators of version {version} of the domain {domain!r}")

    def refuse(self, what: str) -> NoReturn:
        """Say that something is well-formed, and not what exports hold."""
        raise ModelFileError(f"{self.path}: {what}.", _ONLY_OURS)

    def domain(self, what: str, record: dict[str, list[str]]) -> str:
        domain = record.get("domain", [""])[0]
        if domain not in ALLOWED:
            allowed = ", ".join(sorted(map(repr, ALLOWED)))
            self.refuse(f"{what} is of the operator domain {domain[:200]!r}; allowed: {allowed}")
        return domain

    def text(self, kind: str, view: memoryview, limit: int) -> str:
        if len(view) > limit:
            self.fail(f"a text of {len(view)} bytes in a {kind}; at most {limit} are allowed")
        try:
            return bytes(view).decode()
        except UnicodeDecodeError:
            self.fail(f"a text in a {kind} is not UTF-8")
