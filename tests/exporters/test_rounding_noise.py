"""A whole graph in integers that differs: PyTorch with inputs rounded tells whether it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lively import write_lively
from tiny import tiny_config

from allmem_exporters.errors import ExportError
from allmem_exporters.model.checkpoint import CheckpointWeights
from allmem_exporters.model.state import state_spec
from allmem_exporters.onnx import validate as validation
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.float_noise import relative_rms
from allmem_exporters.onnx.graph_runner import GraphRunner
from allmem_exporters.onnx.layer_check import LayerCheck
from allmem_exporters.onnx.reference import Reference
from allmem_exporters.onnx.rounding_noise import round_to_eight_bits, rounding_noise
from allmem_exporters.onnx.sample_text import draw
from allmem_exporters.onnx.weight_stream import TABLES, MatrixStream
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.stored_weights import StoredWeights, stored_matrices
from allmem_ops.reference.product import rounded_inputs

LAST = 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[CheckpointWeights, Path]:
    """A tiny model's weights and its export in 4 bits."""
    folder = tmp_path_factory.mktemp("rounding")
    checkpoint = write_lively(folder / "checkpoint", tiny_config(hidden_size=96))
    export(checkpoint, folder / "model", weights="int4", check=False)
    return CheckpointWeights(checkpoint), folder / "model"


@pytest.fixture(params=[1])
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As often as the parameter says, the whole graph makes another state of the last layer."""
    found: list[int] = []
    whole = LayerCheck._read_whole

    def read(self: LayerCheck) -> tuple[Any, dict[str, Any]]:
        logits, states = whole(self)
        found.append(len(states))
        if len(found) <= request.param:
            states = {name: 2 * x if f".{LAST}." in name else x for name, x in states.items()}
        return logits, states

    monkeypatch.setattr(LayerCheck, "_read_whole", read)
    return found


def checked(exported: tuple[CheckpointWeights, Path], lines: list[str]) -> None:
    weights, folder = exported
    validation.validate(folder, weights, storage="int4", report=lines.append)


def test_inputs_are_rounded_as_the_operator_rounds_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 70) * torch.logspace(-3, 3, 5)[:, None]
    x[0, 0, :32] = 0.0

    found = round_to_eight_bits(x)

    assert found.shape == x.shape
    wanted = rounded_inputs(x.reshape(10, 70).numpy())[:, :70]
    assert relative_rms(found.reshape(10, 70).numpy(), wanted) < 1e-6
    assert relative_rms(found.numpy(), x.numpy()) > 1e-3


def test_pytorch_rounded_is_as_far_off_as_the_whole_graph(
    exported: tuple[CheckpointWeights, Path],
) -> None:
    weights, folder = exported
    text = draw(weights.config, None, 0)
    stored = stored_matrices(MatrixStream(weights), stored_format("int4"), TABLES)
    reference = Reference(weights, StoredWeights(stored))
    *_, reading = reference.read(text.tokens)
    assert reading.index == LAST

    own = rounding_noise(reference, text.tokens, reading)

    spec = state_spec(weights.config)
    _, states = GraphRunner(folder, spec, native=True).read(text.tokens, text.whole, text.rows)
    last = states[-len(reading.state.tensors()) :]
    pairs = zip(last, reading.state.tensors(), strict=True)
    graph = max(relative_rms(np.asarray(one), other.numpy()) for one, other in pairs)
    assert 1e-3 < graph / 1.5 < own < 1.5 * graph


def test_whole_graph_that_differs_where_pytorch_rounded_does_not_is_refused(
    exported: tuple[CheckpointWeights, Path], wrong: list[int]
) -> None:
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"8-bit inputs.*differs from PyTorch.*allowed are 3e-01"):
        checked(exported, lines)
    assert len(wrong) == 1
    assert not [line for line in lines if "another is drawn" in line]


@pytest.mark.parametrize("wrong", [validation.MOST_TEXTS], indirect=True)
def test_whole_graph_that_differs_on_every_text_is_refused_whatever_rounding_makes(
    exported: tuple[CheckpointWeights, Path], wrong: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "rounding_noise", lambda *_: 1.0)
    with pytest.raises(ExportError, match="cannot be compared with PyTorch"):
        checked(exported, [])
    assert len(wrong) == validation.MOST_TEXTS


def test_whole_graph_is_read_again_where_pytorch_rounded_differs_as_well(
    exported: tuple[CheckpointWeights, Path],
    wrong: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers: list[int] = []

    def far(reference: Reference, text: Any, reading: Any, progress: Any) -> float:
        layers.append(reading.index)
        return 1.01 * validation.UNSTEADY_IN_INTEGERS

    monkeypatch.setattr(validation, "rounding_noise", far)
    lines: list[str] = []
    checked(exported, lines)

    assert layers == [LAST] and len(wrong) == 2
    (line,) = (line for line in lines if "another is drawn" in line)
    assert line.startswith(
        "PyTorch with inputs of products rounded to eight bits is off by 1.5e-01"
    )
