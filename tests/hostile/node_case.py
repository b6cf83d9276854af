"""One node of our domain with all that a graph may get wrong about it, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from allmem_ops import DOMAIN

Dims = tuple[int, ...]

TYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


@dataclass(frozen=True, slots=True)
class Given:
    """What a node gets for an input.

    Attributes:
        dims: its shape; NumPy has no empty array with axes as long as a graph's may be.
        element: its element type, by NumPy's name.
        data: the numbers, row by row; nothing where an axis is 0.
        source: ``feed``; ``weight``, which is part of the model; ``made`` by a node of the graph.
        shift: bytes by which its memory lies off an aligned address; for what is fed only.
    """

    dims: Dims
    element: str
    data: bytes
    source: str = "feed"
    shift: int = 0

    @staticmethod
    def of(array: np.ndarray) -> Given:
        return Given(array.shape, str(array.dtype), np.ascontiguousarray(array).tobytes())

    @property
    def array(self) -> np.ndarray:
        numbers = np.frombuffer(self.data, dtype_of(self.element))
        return numbers.reshape(self.dims)

    @property
    def is_huge(self) -> bool:
        """Whether it has axes that NumPy cannot hold, although it holds nothing."""
        return 0 in self.dims and max(self.dims) > 1 << 16


def dtype_of(element: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if element == "bfloat16" else element)


@dataclass(frozen=True, slots=True)
class NodeCase:
    """A node, what it is fed, and how it is run.

    Attributes:
        seed: that it was made from.
        operator: its name.
        changes: what was done to a good node; none for a good one.
        attributes: values as ``onnx.helper.make_node`` takes them.
        inputs: by name, in order; None where the node has none.
        outputs: names with element types, in order; None where the node has none.
        aliases: inputs that are the same value as another one.
        in_place: outputs that are bound to the memory of an input.
        version: of our domain that the graph asks for.
        threads: of the session.
    """

    seed: int
    operator: str
    changes: tuple[str, ...]
    attributes: Mapping[str, Any]
    inputs: Mapping[str, Given | None]
    outputs: Mapping[str, str | None]
    aliases: Mapping[str, str]
    in_place: Mapping[str, str]
    version: int = 2
    threads: int = 1

    @property
    def label(self) -> str:
        said = ", ".join(self.changes) or "unchanged"
        return f"seed {self.seed}: {self.operator}, {said}"

    def model(self) -> bytes:
        """The graph: this node, and nodes that make what NumPy cannot hold."""
        nodes, feeds, weights = [], [], []
        for name, given in self.inputs.items():
            if given is None or name in self.aliases:
                continue
            element = TYPES[given.element]
            if given.source == "weight":
                weights.append(helper.make_tensor(name, element, given.dims, given.data, raw=True))
            elif given.source == "made" or given.is_huge:
                shape = f"{name}.shape"
                feeds.append(
                    helper.make_tensor_value_info(shape, TensorProto.INT64, [len(given.dims)])
                )
                value = helper.make_tensor("value", element, [1], given.data[:0] or _one(given))
                if given.element == "bfloat16":
                    value = helper.make_tensor("value", element, [1], b"\0\0", raw=True)
                nodes.append(helper.make_node("ConstantOfShape", [shape], [name], value=value))
            else:
                feeds.append(helper.make_tensor_value_info(name, element, None))
        nodes.append(
            helper.make_node(
                self.operator,
                [
                    "" if given is None else self.aliases.get(name, name)
                    for name, given in self.inputs.items()
                ],
                ["" if element is None else name for name, element in self.outputs.items()],
                domain=DOMAIN,
                **self.attributes,
            )
        )
        outputs = [
            helper.make_tensor_value_info(name, TYPES[element], None)
            for name, element in self.outputs.items()
            if element is not None
        ]
        graph = helper.make_graph(nodes, "node", feeds, outputs, weights)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, self.version)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return model.SerializeToString()

    def fed(self) -> dict[str, Given]:
        """What the graph's own inputs get."""
        feeds = {}
        for name, given in self.inputs.items():
            if given is None or name in self.aliases or given.source == "weight":
                continue
            if given.source == "made" or given.is_huge:
                feeds[f"{name}.shape"] = Given.of(np.array(given.dims, np.int64))
            else:
                feeds[name] = given
        return feeds


def _one(given: Given) -> list[float]:
    return [1.0 if given.element.startswith("float") else 1]
