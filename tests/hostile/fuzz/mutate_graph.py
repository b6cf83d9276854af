"""Changes what a graph computes: nodes get other inputs, operators, attributes and constants.

Most of what comes out is well-formed, so that it gets further than spoiled bytes do.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import onnx
from onnx import numpy_helper

from allmem_runtime.files.graph_operators import ALLOWED

_NUMBERS = (-(1 << 63), -(1 << 31), -2, -1, 0, 1, 2, 3, 5, 7, 16, 1 << 31, (1 << 63) - 1)

Holder = onnx.GraphProto | onnx.FunctionProto


def mutated_graph(data: bytes, draw: Random) -> bytes:
    """A model with one to three changes."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder = draw.choice([h for h in _holders(model.graph, *model.functions) if h.node])
        _change(holder, draw)
    return bytes(model.SerializeToString())


def _holders(*holders: Holder) -> Iterator[Holder]:
    """These, and the graphs in the attributes of their nodes."""
    for holder in holders:
        yield holder
        for node in holder.node:
            yield from _holders(*(a.g for a in node.attribute if a.HasField("g")))


def _change(holder: Holder, draw: Random) -> None:
    at = draw.randrange(len(holder.node))
    node, kind = holder.node[at], draw.random()
    if kind < 0.35 and node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(_names(holder))
    elif kind < 0.5:
        node.op_type = draw.choice(sorted(ALLOWED.get(node.domain, ALLOWED[""])))
    elif kind < 0.75:
        _change_constant(holder, draw)
    elif kind < 0.85 and node.attribute:
        attribute = draw.choice(node.attribute)
        attribute.i = draw.choice(_NUMBERS)
        if attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(_NUMBERS)
    elif kind < 0.9 and len(node.input) > 1:
        del node.input[-1]
    elif kind < 0.95:
        copy = onnx.NodeProto.FromString(
            holder.node[draw.randrange(len(holder.node))].SerializeToString()
        )
        copy.output[:] = [f"{name}.copy" for name in copy.output]
        node.input[:] = [*node.input[:-1], *copy.output[:1]]
        holder.node.insert(at, copy)
    else:
        node.output[draw.randrange(len(node.output))] = draw.choice(_names(holder))


def _names(holder: Holder) -> list[str]:
    """Of values that a node may know."""
    made = [name for node in holder.node for name in (*node.input, *node.output)]
    held = [tensor.name for tensor in getattr(holder, "initializer", ())]
    return ["", *made, *held]


def _change_constant(holder: Holder, draw: Random) -> None:
    """Another shape or other numbers of a small tensor."""
    values = [a.t for node in holder.node for a in node.attribute if a.HasField("t")]
    values += [t for t in getattr(holder, "initializer", ()) if not t.external_data]
    if not values:
        return
    tensor = draw.choice(values)
    array = numpy_helper.to_array(tensor)
    if array.size > 4096:
        return
    kind = draw.random()
    if kind < 0.4 and array.dtype.kind in "iu":
        array = array.copy()
        array.reshape(-1)[: draw.randint(1, 4)] = np.array(draw.choice(_NUMBERS)).astype(
            array.dtype
        )
    elif kind < 0.6:
        array = array.reshape(-1)[: draw.randrange(array.size + 1)]
    elif kind < 0.8:
        array = array[None]
    else:
        array = array.reshape(-1)[:1].reshape(()) if array.size else array
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
