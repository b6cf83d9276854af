"""An exported graph cut into its embedding, its layers and its head, each a small model.

ONNX Runtime folds stored matrices to float32 where it has no kernel for them, or where their inputs
shall not be rounded. Of one layer that takes little memory; of the whole graph it would take as
much as the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import helper

from allmem_exporters.errors import ExportError
from allmem_exporters.onnx.ir_utils import RESIDUAL_SUMS
from allmem_ops.reference.product import TILE
from allmem_runtime.spec import GRAPH_FILE, INPUT_IDS, LOGIT_INDEX, LOGITS, POSITION

_WIDTHS = {"QuantisedMatMul": "width", "MatMulNBits": "N"}
"""Attributes that say how many outputs a product has."""


class StepPieces:
    """The parts of an export.

    Args:
        folder: the export.
        layers: how many it has.

    Raises:
        ExportError: its nodes do not follow each other as those of a decoder do.
    """

    def __init__(self, folder: Path, layers: int) -> None:
        self.model = onnx.load(folder / GRAPH_FILE, load_external_data=False)
        graph = self.model.graph
        self._makers = {
            name: place for place, node in enumerate(graph.node) for name in node.output if name
        }
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._values = {value.name: value for value in (*graph.input, *graph.output)}
        sums = [node for node in graph.node if node.op_type in RESIDUAL_SUMS]
        if len(sums) not in (2 * layers, 2 * layers + 1):
            raise _defect(f"it has {len(sums)} residual sums instead of {2 * layers}")
        self._sums = sums[-2 * layers :]
        self._first = sums[0] if len(sums) % 2 else None
        self.layers = layers
        gain = self._initializers[sums[0].input[2]]
        self._element, self._hidden = gain.data_type, gain.dims[0]

    @property
    def stream_type(self) -> str:
        """NumPy's name of the token stream's type."""
        return str(helper.tensor_dtype_to_np_dtype(self._element))

    @property
    def norms_first(self) -> bool:
        """Whether layers begin with a norm, or read the token stream as it is."""
        return self._first is not None

    def embedding(self) -> tuple[onnx.ModelProto, list[str]]:
        """(a model from tokens, its outputs: the token stream and, if layers norm it, its norm)."""
        outputs = [self._sums[0].input[1]]
        if self._first is not None:
            outputs.append(self._first.output[0])
        return self._model([self._values[INPUT_IDS]], outputs), outputs

    def layer(
        self, index: int, past: Sequence[str], present: Sequence[str]
    ) -> tuple[onnx.ModelProto, list[str], list[str]]:
        """One layer.

        Args:
            index: of the layer.
            past: names of its state before.
            present: names of its state after.

        Returns:
            A model; its inputs for the normed stream, if it reads that, and the stream; and its
            outputs: what attention and memory add, what the feed-forward network adds, the stream
            as what follows reads it, and the state.

        Raises:
            ExportError: the layer reads what it should not.
        """
        middle, after = self._sums[2 * index : 2 * index + 2]
        before = self._first if index == 0 else self._sums[2 * index - 1]
        stream = middle.input[1]
        if (index and before and stream != before.output[3]) or after.input[1] != middle.output[3]:
            raise _defect(f"layer {index} does not add to what the layers before it made")
        inputs = [before.output[0], stream] if before and self.norms_first else [stream]
        follows = after.output[0 if self.norms_first or index + 1 == self.layers else 3]
        outputs = [middle.input[0], after.input[0], follows, *present]
        streams = [self._stream(name) for name in inputs]
        state = [self._values[name] for name in (POSITION, *past)]
        return self._model([*streams, *state], outputs), inputs, outputs

    def head(self, first: int, end: int) -> tuple[onnx.ModelProto, str]:
        """Some rows of the head.

        Args:
            first: token whose logit is the first, a multiple of 16.
            end: last token + 1.

        Returns:
            A model from the normed stream to logits, and the name of its input.
        """
        stream = self._sums[-1].output[0]
        model = self._model([self._stream(stream), self._values[LOGIT_INDEX]], [LOGITS])
        whole = self._values[LOGITS].type.tensor_type.shape.dim[-1].dim_value
        for tensor in model.graph.initializer:
            if len(tensor.dims) > 1 and tensor.external_data:
                if tensor.dims[0] == whole:
                    _cut(tensor, first, end)
                elif tensor.dims[0] == -(-whole // TILE):
                    _cut(tensor, first // TILE, -(-end // TILE))
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == _WIDTHS.get(node.op_type):
                    attribute.i = end - first
        return model, stream

    def _stream(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, self._element, [1, None, self._hidden])

    def _model(
        self, inputs: Iterable[onnx.ValueInfoProto], outputs: Sequence[str]
    ) -> onnx.ModelProto:
        """The nodes between some values, as a model of its own."""
        inputs = list(inputs)
        nodes, constants = self._between({value.name for value in inputs}, outputs)
        results = [
            self._values.get(name, helper.make_tensor_value_info(name, self._element, None))
            for name in outputs
        ]
        if any(name == LOGITS for name in outputs):
            results = [helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, None)]
        graph = helper.make_graph(
            nodes, "piece", inputs, results, [self._initializers[name] for name in constants]
        )
        return helper.make_model(
            graph,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            functions=self.model.functions,
        )

    def _between(
        self, inputs: set[str], outputs: Sequence[str]
    ) -> tuple[list[onnx.NodeProto], list[str]]:
        """The nodes that make ``outputs``, in the graph's order, and the constants they read."""
        wanted, seen = list(outputs), set(inputs)
        places: set[int] = set()
        constants: dict[str, None] = {}
        while wanted:
            name = wanted.pop()
            if not name or name in seen:
                continue
            seen.add(name)
            if name in self._initializers:
                constants[name] = None
            elif name in self._makers:
                places.add(self._makers[name])
                wanted += self.model.graph.node[self._makers[name]].input
            else:
                raise _defect(f"{', '.join(outputs)} depend on {name!r}")
        return [self.model.graph.node[place] for place in sorted(places)], list(constants)


def _cut(tensor: onnx.TensorProto, first: int, end: int) -> None:
    """Let a tensor in the file have some of its rows only."""
    place = {entry.key: entry for entry in tensor.external_data}
    row = int(place["length"].value) // tensor.dims[0]
    place["offset"].value = str(int(place["offset"].value) + first * row)
    place["length"].value = str((end - first) * row)
    tensor.dims[0] = end - first


def _defect(what: str) -> ExportError:
    return ExportError(
        f"The exported graph is not that of a decoder: {what}.",
        "This is a defect of the exporter: please report it with the model's config.json.",
    )
