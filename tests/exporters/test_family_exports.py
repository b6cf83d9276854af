"""Families whose layers differ from Llama's: from transformers to the exported graph and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import write_folder
from decoders import DECODERS, decoder, relative_rms
from lively import FAMILIES as LIVELY
from lively import lively_model
from test_modeling_streaming import IDS

from allmem_exporters import AllMemConfig, ConfigError
from allmem_exporters.convert.conversion import convert
from allmem_exporters.convert.in_memory import convert_model
from allmem_exporters.errors import ExportError
from allmem_exporters.finetune.passes import Passes, Shape
from allmem_exporters.make import make
from allmem_exporters.model.layers import capped
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.modeling import pieces
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.graph_runner import GraphRunner
from allmem_runtime.config import LocalLayers, Manifest
from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.package import open_package
from allmem_runtime.info import model_info, model_lines

ODD = ("gemma", "gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4", "glm4", "cohere", "cohere2")
WITH_LOCAL = [name for name in ODD if "sliding_window" in DECODERS[name][2]]
LENGTH = 80  # local windows of 24 go round three times
MEMORY = {"window": LENGTH, "sinks": 4, "chunk": 16, "mem_width": 16, "cache_dtype": "float32"}


@pytest.mark.parametrize("name", ODD)
def test_exported_graph_gives_the_logits_of_transformers(tmp_path: Path, name: str) -> None:
    model = write_folder(tmp_path / "source", name)
    convert(tmp_path / "source", tmp_path / "checkpoint", **MEMORY)
    manifest = export(tmp_path / "checkpoint", tmp_path / "out", check=False)
    ids = np.random.default_rng(0).integers(0, 97, LENGTH).tolist()
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
    for native in (True, False):
        runner = GraphRunner(tmp_path / "out", manifest.state, native=native)
        logits, _ = runner.read(ids, pieces(0, LENGTH, 16), range(LENGTH))
        assert relative_rms(torch.from_numpy(logits), wanted) < 1e-5


@pytest.mark.parametrize("name", ODD)
def test_integers_are_exported_and_opened(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "source", name)
    options = MemoryOptions(**{**MEMORY, "cache_dtype": "int8"})
    # The check is part of it: each stored matrix, each layer with float32 and rounded inputs.
    make(tmp_path / "source", tmp_path / "out", options, ExportOptions(weights="int4"))
    assert open_package(tmp_path / "out").manifest.weights == "int4"


@pytest.mark.parametrize("name", WITH_LOCAL)
def test_local_layers_keep_their_window_and_no_sinks(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "source", name)
    convert(tmp_path / "source", tmp_path / "checkpoint", **MEMORY)
    manifest = export(tmp_path / "checkpoint", tmp_path / "out", check=False)
    assert manifest.local == LocalLayers((0, 2), 24)
    assert Manifest.from_json(manifest.to_json(), "again") == manifest
    slots = [tensor.shape[2] for _, tensor in manifest.state if tensor.name == "key"]
    assert slots == [24, LENGTH + 4, 24]
    lines = "\n".join(model_lines(model_info(tmp_path / "out")))
    assert "2 of these layers, which see the last 24 tokens and no others" in lines


def test_uniform_manifest_says_nothing_of_local_layers(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "llama tied")
    convert(tmp_path / "source", tmp_path / "checkpoint", **MEMORY)
    export(tmp_path / "checkpoint", tmp_path / "out", check=False)
    assert "local" not in json.loads((tmp_path / "out" / "allmem.json").read_text())


@pytest.mark.parametrize(
    ("local", "said"),
    [
        ({"layers": [0], "window": 0}, "window is 0"),
        ({"layers": [], "window": 8}, "local.layers must be a list of layers 0 to 2"),
        ({"layers": [2, 0], "window": 24}, "local.layers must be a list of layers 0 to 2"),
        ({"layers": [3], "window": 24}, "local.layers must be a list of layers 0 to 2"),
        ({"layers": [0]}, "'local.window' is missing"),
        ([0], "local is .* must be an object"),
    ],
)
def test_manifest_with_odd_local_layers_is_refused(
    tmp_path: Path, local: object, said: str
) -> None:
    write_folder(tmp_path / "source", "gemma3_text")
    convert(tmp_path / "source", tmp_path / "checkpoint", check=False, **MEMORY)
    manifest = export(tmp_path / "checkpoint", tmp_path / "out", check=False)
    values = json.loads(manifest.to_json()) | {"local": local}
    with pytest.raises(ModelFileError, match=said):
        Manifest.from_json(json.dumps(values), "odd")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"local_layers": [0]}, "local_layers and local_window go together"),
        ({"local_layers": [9], "local_window": 20}, "it must list layers 0 to 1"),
        ({"local_layers": [0], "local_window": 8}, "chunk is 16; it must be at most window, 8"),
        (
            {"local_layers": [0], "local_window": 16, "windows": [[24, 24], [24, 24]]},
            "windows do not go with local_layers",
        ),
        (
            {
                "backbone": "glm4",
                "local_layers": [0],
                "local_window": 16,
                "local_rope_parameters": {
                    "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
                },
            },
            "partial_rotary_factor differs",
        ),
        ({"attention_softcap": -1.0}, "attention_softcap is -1.0"),
        ({"logits_softcap": "30"}, "logits_softcap is '30'"),
    ],
)  # fmt: skip
def test_configuration_that_contradicts_itself_is_refused(
    changes: dict[str, object], said: str
) -> None:
    known = LIVELY["llama"].to_diff_dict()
    with pytest.raises(ConfigError, match=said):
        AllMemConfig(**{**known, **changes})


@pytest.mark.parametrize(
    "name", [name for name in LIVELY if name.split(",")[0] not in ("llama", "granite")]
)
def test_trained_passes_are_the_streaming_model(name: str) -> None:
    config = LIVELY[name].to_diff_dict() | {"cache_dtype": "float32", "sinks": 3}
    reader = lively_model(AllMemConfig(**config))
    shape = Shape(24, 3, 16)
    with torch.no_grad():
        wanted = reader(IDS).logits
        head = reader.lm_head(Passes(reader).student(IDS, shape))
        got = capped(head, reader.config.logits_softcap)
    assert relative_rms(got, wanted) < 2e-5


@pytest.mark.parametrize("name", ODD)
def test_teacher_is_the_pretrained_model(name: str) -> None:
    model = decoder(name)
    reader = convert_model(model, **MEMORY)
    ids = torch.randint(0, 97, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head = reader.lm_head(Passes(reader).teacher(ids))
        got = capped(head, reader.config.logits_softcap)
        assert relative_rms(got, model(ids).logits) < 2e-5


def test_windows_by_head_are_refused_beside_local_layers(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "gemma3_text")
    with pytest.raises(ExportError, match="layers of this model keep windows of their own"):
        convert(
            tmp_path / "source", tmp_path / "out", windows=tmp_path / "heads.json",
            check=False, **MEMORY,
        )  # fmt: skip


def test_chunk_is_shortened_to_the_window_of_local_layers(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "gemma3_text")
    convert(tmp_path / "source", tmp_path / "out", mem_width=16, check=False)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["chunk"] == 24
