"""Runs exported graphs with plain arrays; simple on purpose, for comparison only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from allmem_runtime.spec import (
    GRAPH_FILE,
    INPUT_IDS,
    LOGIT_INDEX,
    LOGITS,
    POSITION,
    StateSpec,
    past_name,
    present_name,
)

Cuts = Sequence[tuple[int, int]]
"""(first, last + 1) of each piece."""

Arrays = dict[str, NDArray[np.generic]]

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def open_session(
    folder: Path,
    model: onnx.ModelProto | None = None,
    *,
    native: bool,
    fold: bool = True,
) -> onnxruntime.InferenceSession:
    """Open an export, or a part of it.

    Args:
        folder: the export, in which the weights lie.
        model: the part; None for the whole.
        native: with our library, or with the function bodies.
        fold: let ONNX Runtime compute constants once; without it, matrices are widened at each
            step and take no memory between.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it takes twice what is needed, and keeps it
    if native:
        from allmem_ops import library

        library.register(options)
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
    graph: str | bytes = str(folder / GRAPH_FILE)
    if model is not None:
        graph = model.SerializeToString()
    return onnxruntime.InferenceSession(
        graph,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=None if fold else ["ConstantFolding"],
    )


class GraphRunner:
    """Steps a whole export.

    Args:
        folder: the export.
        state: of the model.
        native: with our library, or with the function bodies.
        fold: let ONNX Runtime compute constants once.
    """

    def __init__(
        self,
        folder: Path,
        state: StateSpec,
        *,
        native: bool,
        fold: bool = True,
    ) -> None:
        self.session = open_session(folder, native=native, fold=fold)
        self.spec = state
        self.constants: Arrays = {}
        """What the graph takes in addition."""

    def read(
        self, tokens: Sequence[int], cuts: Cuts, rows: Sequence[int]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.floating]]]:
        """Read a text in the given pieces.

        Args:
            tokens: ids of the whole text.
            cuts: (first, last + 1) of each piece, none crossing a chunk boundary.
            rows: which tokens want logits, ascending.

        Returns:
            Logits [rows, vocab_size] and the state tensors in the order of the specification.
        """
        state = [np.zeros(t.shape, t.element) for _, t in self.spec]
        wanted = [LOGITS, *(present_name(layer, t.name) for layer, t in self.spec)]
        logits = []
        for first, end in cuts:
            here = [row - first for row in rows if first <= row < end]
            feed = {
                INPUT_IDS: np.array([tokens[first:end]], np.int64),
                POSITION: np.array([first], np.int64),
                LOGIT_INDEX: np.array(here, np.int64),
                **self.constants,
            }
            for (layer, tensor), array in zip(self.spec, state, strict=True):
                feed[past_name(layer, tensor.name)] = array
            found, *state = self.session.run(wanted, feed)
            logits.append(found[0])
        return np.concatenate(logits), state


def read_streams(
    session: onnxruntime.InferenceSession,
    streams: Arrays,
    state: Mapping[str, tuple[str, NDArray[np.generic]]],
    outputs: Sequence[str],
    cuts: Cuts,
    constants: Mapping[str, NDArray[np.generic]],
) -> tuple[list[NDArray[np.floating]], list[NDArray[np.floating]]]:
    """Read a text with one layer.

    Args:
        session: of the layer.
        streams: what it reads of each token, [1, time, …].
        state: for the name of each state tensor after a step, that before it, and its first value.
        outputs: what it writes for each token.
        cuts: pieces of the text.
        constants: what else the layer takes.

    Returns:
        Each output, joined along time, and each tensor of the state.
    """
    found: list[list[NDArray[np.floating]]] = []
    past: dict[str, Any] = dict(state.values())
    for first, end in cuts:
        feed = {name: array[:, first:end] for name, array in streams.items()}
        position = {POSITION: np.array([first], np.int64)}
        results = session.run([*outputs, *state], {**feed, **position, **past, **constants})
        found.append(results[: len(outputs)])
        past = dict(zip(past, results[len(outputs) :], strict=True))
    return [np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)], list(
        past.values()
    )
