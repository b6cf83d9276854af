"""The comparison of an export with PyTorch: layer by layer, and end to end on one text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from allmem_exporters.model.state import blank_layer, state_spec
from allmem_exporters.onnx.agreement import Agreement, Comparison
from allmem_exporters.onnx.graph_runner import GraphRunner, open_session, read_streams
from allmem_exporters.onnx.reference import LayerReading, Reference
from allmem_exporters.onnx.sample_text import SampleText
from allmem_exporters.onnx.step_module import DTYPES, residual_scale
from allmem_exporters.onnx.step_pieces import StepPieces
from allmem_exporters.progress import Progress
from allmem_exporters.quantization.formats import widen_inputs
from allmem_exporters.quantization.stored_format import StoredFormat
from allmem_runtime.engine.malloc import give_heap_back
from allmem_runtime.spec import INPUT_IDS, LOGIT_INDEX, LOGITS, past_name, present_name

ROUNDED_INPUTS_TOLERANCE = 0.3
"""Relative RMS where inputs of products are rounded to eight bits, end to end, in whole chunks.

Each product is off by a hundredth, and layers add that up: SmolLM2-135M in int4 ends with 1.6e-2 in
the logits and 8.7e-2 in the values of layer 19, where float32 inputs have 1.5e-4 and 5e-4. What
is wrong with a weight shows in the comparison with float32 inputs; this one shows whether the
kernels for integers do their work.
"""
ROUNDED_LAYER_TOLERANCE = 0.2
"""The same for one layer that reads what PyTorch's layers before it made.

In SmolLM2-135M the worst is the open gradient of layer 27, 7e-2; the token streams have 1e-2.
"""

_STREAMS = ("attention and memory", "feed-forward", "what follows")


class LayerCheck:
    """Compares an export with PyTorch.

    Where a text turns out not to be one that can be compared, ``take`` gives another. Each layer is
    compared by itself, on what PyTorch's layers before it made. So layers that agreed are not
    compared again; the whole graph is.

    Args:
        folder: the export.
        reference: the model in PyTorch, with the weights that are stored.
        text: to compare on.
        stored_as: format of the export's products.
        tolerance: for all but inputs that are rounded to eight bits.
        report: is told each result as a line.
    """

    def __init__(
        self,
        folder: Path,
        reference: Reference,
        text: SampleText,
        stored_as: StoredFormat,
        tolerance: float,
        report: Callable[[str], None],
    ) -> None:
        self.folder, self.reference, self.report = folder, reference, report
        self.config = reference.config
        self.agreed = 0
        """Layers that agree, from the first on."""
        self.apart: LayerReading | None = None
        """What PyTorch made of the layer whose state in the whole graph differs."""
        self.integers = stored_as.kernel is not None
        self.widened = stored_as.weights == "float16"
        self.pieces = StepPieces(folder, self.config.num_hidden_layers)
        self.scale = residual_scale(DTYPES[self.pieces.stream_type])
        cuts = ("whole chunks", "random pieces")
        self.library = {one: Comparison("library", one, tolerance) for one in cuts}
        self.bodies = {one: Comparison("function bodies", one, tolerance) for one in cuts}
        self.rounded = Comparison("8-bit layers", "whole chunks", ROUNDED_LAYER_TOLERANCE)
        self._whole_allowed = ROUNDED_INPUTS_TOLERANCE if self.integers else tolerance
        self.take(text)

    def take(self, text: SampleText) -> None:
        """Go on with a text, from the first layer on that does not agree yet."""
        self.text, self.apart = text, None
        self.cuts = {"whole chunks": text.whole, "random pieces": text.random}
        name = "8-bit inputs" if self.integers else "whole graph"
        self.whole = Comparison(name, "whole chunks", self._whole_allowed)
        for one in self._comparisons:
            one.forget_logits()

    @property
    def _comparisons(self) -> list[Comparison]:
        """Those of single layers and the head."""
        rounded = [self.rounded] if self.integers else []
        return [*self.library.values(), *self.bodies.values(), *rounded]

    def run(self) -> list[Agreement]:
        """All comparisons.

        Raises:
            ExportError: a difference exceeds the tolerance, or something is not finite.
        """
        # First, while little else lies in memory: the graph is mapped, and its state is large.
        logits, states = self._read_whole()
        hidden = None
        progress = Progress("checking", self.report)
        for reading in self.reference.read(self.text.tokens):
            if reading.index == 0 == self.agreed:
                self._embedding(reading)
            if reading.index >= self.agreed:
                self._layer(reading)
                self.agreed = reading.index + 1
            names = (tensor.name for tensor in state_spec(self.config).layers[reading.index])
            self.apart = reading
            for name, tensor in zip(names, reading.state.tensors(), strict=True):
                present = present_name(reading.index, name)
                self.whole.state(present, states.pop(present), tensor.numpy())
            self.apart = None
            hidden = reading.after
            progress(reading.index + 1, self.config.num_hidden_layers)
        assert hidden is not None
        self._head(hidden, logits)
        rows = [one.agreement() for one in (*self._comparisons, self.whole)]
        for row in rows:
            self.report(str(row))
        return rows

    def scope(self) -> str:
        """Which layers were compared how."""
        some = ", ".join(str(index) for index in sorted(self.thorough))
        inputs = " as shipped and with float32 inputs" if self.integers else ""
        cut = " and in random pieces" if self.integers else ""
        return (
            f"all {self.config.num_hidden_layers} layers one by one{inputs}, layers {some} with "
            f"function bodies{cut} as well, and the whole graph"
        )

    def _read_whole(self) -> tuple[NDArray[np.float32], dict[str, NDArray[np.floating]]]:
        """Logits and state by name, of the whole graph as it is shipped."""
        spec = state_spec(self.config)
        runner = GraphRunner(self.folder, spec, native=True, fold=not self.widened)
        logits, after = runner.read(self.text.tokens, self.text.whole, self.text.rows)
        names = (present_name(layer, tensor.name) for layer, tensor in spec)
        return logits, dict(zip(names, after, strict=True))

    def _embedding(self, reading: LayerReading) -> None:
        model, outputs = self.pieces.embedding()
        session = open_session(self.folder, model, native=False)
        tokens = np.array([self.text.tokens], np.int64)
        found = session.run(outputs, {INPUT_IDS: tokens})
        truth = (reading.hidden * self.scale, reading.normed)[: len(found)]
        names = ("embedding", "first norm")[: len(found)]
        for name, value, wanted in zip(names, found, truth, strict=True):
            for comparison in (*self.library.values(), *self.bodies.values()):
                comparison.state(name, value, wanted.numpy())

    def _layer(self, reading: LayerReading) -> None:
        """Compare one layer: as it is shipped, with float32 inputs, and some in all ways."""
        thorough = reading.index in self.thorough
        library = self.library
        if self.integers and not thorough:
            library = {"whole chunks": library["whole chunks"]}
        self._ways(reading, library, native=True, wide=self.integers)
        if thorough:
            self._ways(reading, self.bodies, native=False, wide=self.integers)
        if self.integers:
            self._ways(reading, {"whole chunks": self.rounded}, native=True, wide=False)

    @property
    def thorough(self) -> set[int]:
        """Layers that are compared in all ways.

        Layers of one kind of windows differ in their weights alone: what is wrong with a body or a
        cut is wrong in each of them. So there are some of each kind.
        """
        last = self.config.num_hidden_layers - 1
        kinds = {tuple(row): index for index, row in enumerate(self.config.windows or ())}
        local = {self.config.is_local(index): index for index in range(last + 1)}
        return {0, last // 2, last, *kinds.values(), *local.values()}

    def _ways(
        self, reading: LayerReading, ways: dict[str, Comparison], *, native: bool, wide: bool
    ) -> None:
        index = reading.index
        names = [tensor.name for tensor in state_spec(self.config).layers[index]]
        past = [past_name(index, name) for name in names]
        present = [present_name(index, name) for name in names]
        model, inputs, outputs = self.pieces.layer(index, past, present)
        matrices = widen_inputs(model, self.folder, in_pieces=native) if wide else {}
        session = open_session(self.folder, model, native=native)
        element = self.pieces.stream_type
        read = [reading.normed, reading.hidden * self.scale][-len(inputs) :]
        streams = {
            name: stream.numpy().astype(element) for name, stream in zip(inputs, read, strict=True)
        }
        blank = [tensor.numpy() for tensor in blank_layer(self.config, index).tensors()]
        state = dict(zip(present, zip(past, blank, strict=True), strict=True))
        follows = self.reference.normed(index + 1, reading.after)
        if not self.pieces.norms_first and index + 1 < self.config.num_hidden_layers:
            follows = follows * self.scale
        truth = [reading.mixed * self.scale, reading.added * self.scale, follows]
        for cutting, comparison in ways.items():
            found, after = read_streams(
                session, streams, state, outputs[: len(_STREAMS)], self.cuts[cutting], matrices
            )
            for name, value, wanted in zip(_STREAMS, found, truth, strict=True):
                comparison.state(f"{name} of layer {index}", value, wanted.numpy())
            for name, value, wanted in zip(present, after, reading.state.tensors(), strict=True):
                comparison.state(name, value, wanted.numpy())

    def _head(self, hidden: torch.Tensor, whole: NDArray[np.float32]) -> None:
        """Compare the head, some rows at a time, and with them the logits of the whole graph."""
        rows = self.reference.last_norm(hidden)[:, self.text.rows]
        stream = rows.numpy().astype(self.pieces.stream_type)
        for first, end, table in self.reference.table_pieces("head"):
            truth = self.reference.logits(rows[0], table).numpy()
            self.whole.logits(whole[:, first:end], truth)
            ways = [(True, self.library)] + ([(False, self.bodies)] if first == 0 else [])
            for native, comparisons in ways:
                found = self._head_rows(first, end, stream, native=native, wide=self.integers)
                for comparison in comparisons.values():
                    comparison.logits(found, truth)
            if self.integers:
                found = self._head_rows(first, end, stream, native=True, wide=False)
                self.rounded.logits(found, truth)

    def _head_rows(
        self, first: int, end: int, stream: NDArray[np.floating], *, native: bool, wide: bool
    ) -> NDArray[np.float32]:
        """Some of the graph's logits, [rows, end - first], from the normed stream."""
        give_heap_back()  # opening a session leaves holes that the next does not fill
        model, name = self.pieces.head(first, end)
        matrices = widen_inputs(model, self.folder, in_pieces=native) if wide else {}
        session = open_session(self.folder, model, native=native)
        feed = {name: stream, LOGIT_INDEX: np.arange(stream.shape[1]), **matrices}
        found: NDArray[np.float32] = session.run([LOGITS], feed)[0][0]
        return found
