"""Checks that an export on the generic path computes what PyTorch computes with the same weights.

The whole model lies in memory, in float32. It reads a random text in whole chunks; the graph reads
it so and in random pieces, with our library and with the function bodies. Logits and state are
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.decoder import BRANCH, GenericDecoder, model_without_values
from allmem_exporters.generic.matrices import weights_in
from allmem_exporters.generic.names import buffers_without_values, tables_of
from allmem_exporters.model.state import AllMemState, state_spec
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.onnx.agreement import Agreement, Comparison
from allmem_exporters.onnx.graph_runner import Cuts, GraphRunner, open_session
from allmem_exporters.onnx.layer_check import ROUNDED_INPUTS_TOLERANCE
from allmem_exporters.onnx.sample_text import SampleText, draw
from allmem_exporters.onnx.validate import TOLERANCE
from allmem_exporters.quantization.blocks import Matrix
from allmem_exporters.quantization.formats import widen_inputs
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix
from allmem_exporters.quantization.stored_weights import StoredWeights
from allmem_runtime.quantities import format_bytes
from allmem_runtime.spec import GRAPH_FILE, present_name


def validate_generic(
    folder: Path,
    weights: ModelWeights,
    matrices: Mapping[str, Matrix],
    stored: Mapping[str, StoredMatrix] | None,
    stored_as: StoredFormat,
    *,
    tokens: int | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> list[Agreement]:
    """Compare an exported folder with the model it came from.

    Args:
        folder: the export.
        weights: of the model.
        matrices: the large ones by their names in the graph.
        stored: what the export stores in the place of each, read from its file; None where nothing
            is rounded.
        stored_as: the format of products.
        tokens: length of the random text; by default long enough for the window to go round.
        seed: of the text and of the random cutting.
        report: is told each result as a line.

    Returns:
        One row for each way of running the graph.

    Raises:
        ExportError: a difference exceeds the tolerance, or something is not finite.
    """
    config = weights.config
    assert isinstance(config, GenericConfig)
    text = draw(config, tokens, seed)
    taken = None if stored is None else StoredWeights(stored)
    reference = GenericDecoder(_model(weights, config, matrices, taken), config)
    if taken is not None:
        found = taken.rounding()
        report(
            f"{'stored weights':<15}  {found.matrices} matrices of {stored_as.description}: "
            f"{format_bytes(found.nbytes)}, errors up to {found.worst:.2f} of what rounding may "
            f"leave ({found.worst_name})"
        )
    logits, state = _read(reference, config, text)
    names = [present_name(layer, tensor.name) for layer, tensor in state_spec(config)]
    rows = []

    def compare(who: str, cutting: str, allowed: float, runner: GraphRunner) -> None:
        cuts: Cuts = text.whole if cutting == "whole chunks" else text.random
        comparison = Comparison(who, cutting, allowed)
        found, after = runner.read(text.tokens, cuts, text.rows)
        comparison.logits(found, logits)
        for name, value, truth in zip(names, after, state, strict=True):
            comparison.state(name, value, truth)
        rows.append(comparison.agreement())
        report(str(rows[-1]))

    tolerance, spec = TOLERANCE[config.cache_dtype], state_spec(config)
    for native, who in ((True, "library"), (False, "function bodies")):
        runner = GraphRunner(folder, spec, native=native)
        if stored_as.kernel is not None:  # the weights alone are compared: inputs are not rounded
            graph = onnx.load(folder / GRAPH_FILE, load_external_data=False)
            runner.constants = dict(widen_inputs(graph, folder, in_pieces=native))
            runner.session = open_session(folder, graph, native=native)
        for cutting in ("whole chunks", "random pieces"):
            compare(who, cutting, tolerance, runner)
    if stored_as.kernel is not None:
        runner = GraphRunner(folder, spec, native=True)
        compare("8-bit inputs", "whole chunks", ROUNDED_INPUTS_TOLERANCE, runner)
    return rows


@torch.no_grad()
def _read(
    reference: GenericDecoder, config: GenericConfig, text: SampleText
) -> tuple[NDArray[np.float32], list[NDArray[np.floating]]]:
    """Logits of the sampled rows and the state, of the model in PyTorch."""
    state, logits = list(AllMemState.blank(config)), []
    for first, end in text.whole:
        rows = [row - first for row in text.rows if first <= row < end]
        ids = torch.tensor([text.tokens[first:end]])
        index = torch.tensor(rows, dtype=torch.int64)
        found, *state = reference(ids, torch.tensor([first]), index, state)
        logits.append(found[0])
    return torch.cat(logits).numpy(), [tensor.numpy() for tensor in state]


@torch.no_grad()
def _model(
    weights: ModelWeights,
    config: GenericConfig,
    matrices: Mapping[str, Matrix],
    taken: StoredWeights | None,
) -> PreTrainedModel:
    """The model with its weights, or with those that are stored in their place."""
    model = model_without_values(config)
    tables = tables_of(model)
    places = {
        placed.weight.name: (own, placed)
        for own, matrix in matrices.items()
        for placed in weights_in(matrix)
    }
    latest: dict[str, Tensor] = {}

    def values(name: str) -> Tensor:
        if taken is None or name not in places:
            return weights.tensor(name).float().clone()
        own, placed = places[name]
        if own not in latest:  # parts of a matrix follow each other
            latest.clear()
            latest[own] = taken.table_rows(own, matrices[own], 0, matrices[own].shape[0])
        return placed.out_of(latest[own])

    tied = f"{tables.head}.weight" if tables.tied else None
    for name, _ in list(model.named_parameters(remove_duplicate=False)):
        if name != tied:
            _put(model, name, values(name))
    if tables.tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    for name in buffers_without_values(model):
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._buffers[leaf] = weights.tensor(name).float()
    if taken is not None:  # it is part of what is stored
        for site in config.probed.sites:
            model.get_submodule(f"{site.path}.{BRANCH}").get_parameter("alpha").fill_(1.0)
    return model


def _put(model: nn.Module, name: str, values: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(values, requires_grad=False))
