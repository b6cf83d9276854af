"""The export's check of models that enlarge rounding: only texts that can be compared count.

In these models some tokens have two large dimensions, and every matrix takes the difference of the
two: what is left after the cancelling carries few digits, whoever computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tiny import tiny_config, tiny_model, write_tiny_checkpoint

from allmem_exporters.errors import ExportError
from allmem_exporters.model.checkpoint import CheckpointWeights
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.weights import WeightsInMemory
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.float_noise import float_noise
from allmem_exporters.onnx.layer_check import LayerCheck
from allmem_exporters.onnx.reference import LayerReading, Reference
from allmem_exporters.onnx.stored_file import file_array
from allmem_exporters.onnx.validate import MOST_TEXTS, STEADY, TOLERANCE, validate
from allmem_runtime.spec import GRAPH_FILE, WEIGHTS_FILE

LENGTH = 37
TEXTS = [np.random.default_rng(seed).integers(0, 320, LENGTH).tolist() for seed in range(2)]
ONLY_IN_THE_FIRST = sorted(set(TEXTS[0]) - set(TEXTS[1]))


def cancelling_model(
    tokens: Sequence[int], first: int = 0, size: float = 3000.0
) -> AllMemForCausalLM:
    """A model that loses digits at the given tokens, four by default.

    It does so in the layers from ``first`` on, which is the third of four unless it is the first.
    """
    layers = {"num_hidden_layers": 4} if first else {}
    model = tiny_model(tiny_config(cache_dtype="float32", **layers))
    with torch.no_grad():
        model.model.embed_tokens.weight[list(tokens), :2] += size
        for index, layer in enumerate(model.model.layers):
            for module in (layer.self_attn, layer.allmem, layer.mlp):
                for name, linear in module.named_children():
                    cancels = name.endswith("proj") and linear.weight.shape[1] == 32
                    if cancels and index >= first:
                        linear.weight[:, 1] = -linear.weight[:, 0]
                    if name in ("o_proj", "down_proj"):
                        linear.weight[:2] = 0.0  # the two stay large, and nearly the same
        model.model.norm.weight[:2] = 0.0
    return model


def write(folder: Path, tokens: Sequence[int]) -> Path:
    return write_model(folder, cancelling_model(tokens))


def write_model(folder: Path, model: AllMemForCausalLM) -> Path:
    write_tiny_checkpoint(folder, tiny_config(cache_dtype="float32"))
    model.save_pretrained(folder)
    return folder


def unsteady_third_layer() -> AllMemForCausalLM:
    return cancelling_model(ONLY_IN_THE_FIRST, first=2, size=30_000.0)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """Which layers were compared by themselves, and when the whole graph was read."""
    found: list[int | str] = []
    layer, whole = LayerCheck._layer, LayerCheck._read_whole

    def of_layer(self: LayerCheck, reading: LayerReading) -> None:
        found.append(reading.index)
        layer(self, reading)

    def of_whole(self: LayerCheck) -> Any:
        found.append("whole")
        return whole(self)

    monkeypatch.setattr(LayerCheck, "_layer", of_layer)
    monkeypatch.setattr(LayerCheck, "_read_whole", of_whole)
    return found


def redrawn(lines: list[str]) -> int:
    return len([line for line in lines if "another is drawn" in line])


def test_sound_graph_passes_on_a_text_that_can_be_compared(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint", ONLY_IN_THE_FIRST)
    lines: list[str] = []
    export(checkpoint, tmp_path / "model", report=lines.append)

    assert redrawn(lines) == 1, "the second text has none of the tokens"
    after = lines[[index for index, line in enumerate(lines) if "another" in line][0] + 1 :]
    assert len([line for line in after if "logits" in line]) == 5, "all comparisons are repeated"


def test_damaged_graph_is_refused_however_unsteady_its_first_text(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint", ONLY_IN_THE_FIRST)
    folder = tmp_path / "model"
    export(checkpoint, folder, check=False)
    data = np.fromfile(folder / WEIGHTS_FILE, np.float32)
    data[: data.size // 8] *= 1.01
    data.tofile(folder / WEIGHTS_FILE)
    lines: list[str] = []

    with pytest.raises(ExportError, match=r"differs from PyTorch.*allowed"):
        validate(folder, CheckpointWeights(checkpoint), report=lines.append)
    assert redrawn(lines) == 1


def test_layers_that_agree_are_not_compared_again_and_all_others_are(
    tmp_path: Path, compared: list[int | str]
) -> None:
    checkpoint = write_model(tmp_path / "checkpoint", unsteady_third_layer())
    lines: list[str] = []

    export(checkpoint, tmp_path / "model", report=lines.append)

    assert redrawn(lines) == 1
    assert compared == ["whole", 0, 1, 2, "whole", 3], "the whole graph differs in the third"
    after = lines[[index for index, line in enumerate(lines) if "another" in line][0] + 1 :]
    assert len([line for line in after if "logits" in line]) == 5


@pytest.mark.parametrize("damaged", [0, 2, 3])
def test_damage_is_found_before_in_and_behind_the_layer_that_is_unsteady(
    tmp_path: Path, damaged: int
) -> None:
    checkpoint = write_model(tmp_path / "checkpoint", unsteady_third_layer())
    folder = tmp_path / "model"
    export(checkpoint, folder, check=False)
    graph = onnx.load(folder / GRAPH_FILE, load_external_data=False).graph
    (down,) = (one for one in graph.initializer if one.name == f"layers.{damaged}.down.weight")
    stored = file_array(folder, down)
    place = {entry.key: int(entry.value) for entry in down.external_data if entry.key != "location"}
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.seek(place["offset"])
        file.write((np.array(stored) * np.float32(1.01)).tobytes())
    lines: list[str] = []

    with pytest.raises(ExportError, match=r"differs from PyTorch.*allowed"):
        validate(folder, CheckpointWeights(checkpoint), report=lines.append)
    assert redrawn(lines) == 1


def test_model_that_no_text_is_steady_for_is_refused_and_told_why(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint", range(320))
    lines: list[str] = []

    with pytest.raises(ExportError, match="cannot be compared with PyTorch") as refused:
        export(checkpoint, tmp_path / "model", report=lines.append)
    assert "--no-check" in str(refused.value)
    assert redrawn(lines) == MOST_TEXTS
    assert not (tmp_path / "model").exists()


def test_ordinary_model_is_compared_once(tmp_path: Path) -> None:
    lines: list[str] = []
    export(write(tmp_path / "checkpoint", []), tmp_path / "model", report=lines.append)

    assert redrawn(lines) == 0


def test_own_rounding_tells_the_two_texts_apart_and_leaves_the_model_as_it_was() -> None:
    model = cancelling_model(ONLY_IN_THE_FIRST)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    reference = Reference(WeightsInMemory(model), None)
    unsteady, steady = (float_noise(reference, text, [5, LENGTH - 1]) for text in TEXTS)

    assert unsteady > TOLERANCE["float32"] > STEADY > steady > 0.0
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_measuring_own_rounding_tells_each_layer() -> None:
    model = cancelling_model(ONLY_IN_THE_FIRST)
    told: list[tuple[int, int]] = []

    float_noise(
        Reference(WeightsInMemory(model), None),
        TEXTS[0],
        [LENGTH - 1],
        lambda done, total: told.append((done, total)),
    )

    layers = model.config.num_hidden_layers
    assert told == [(done, layers) for done in range(1, layers + 1)]


def test_layers_behind_an_unsteady_one_are_not_measured() -> None:
    reference = Reference(WeightsInMemory(cancelling_model(ONLY_IN_THE_FIRST)), None)
    told: list[int] = []

    found = float_noise(
        reference, TEXTS[0], [LENGTH - 1], lambda done, total: told.append(done), enough=1e-9
    )

    assert found > 1e-9
    assert told == [1]
