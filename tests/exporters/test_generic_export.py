"""Exports on the generic path: what they compute, how they are stored, and that they run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from allmem_exporters.ablation.memory_ablation import SILENCED_RATE
from allmem_exporters.commands.export import export as command
from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ExportError
from allmem_exporters.generic import export as exporting
from allmem_exporters.generic.weights import Restrained, open_weights
from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_ops.schema import DOMAIN
from allmem_runtime import load
from allmem_runtime.files.package import open_package
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.spec import GRAPH_FILE
from benchmarks.families.tiny import GENERIC, PACKED, write_tiny_decoder

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)
SHORT = Sampling(temperature=0, max_tokens=6)
TEXT = "the 12 th text, " * 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generic")
    write_tiny_decoder(folder / "source", "phi")  # partial rope, a head with a bias
    return convert(folder / "source", folder / "converted", MEMORY, check=False)


def checked(checkpoint: Path, out: Path, **given: object) -> list[str]:
    lines: list[str] = []
    export(checkpoint, out, report=lines.append, **given)
    return [line for line in lines if " logits " in line]


def operators(model: Path) -> Counter[str]:
    graph = onnx.load(model / GRAPH_FILE, load_external_data=False).graph
    return Counter(node.op_type for node in graph.node)


def domain_version(model: Path) -> int:
    graph = onnx.load(model / GRAPH_FILE, load_external_data=False)
    return next(int(one.version) for one in graph.opset_import if one.domain == DOMAIN)


def test_graph_computes_what_pytorch_computes_and_rotates_nowhere_else(
    checkpoint: Path, tmp_path: Path
) -> None:
    lines = checked(checkpoint, tmp_path / "model")
    assert [line.split("  ")[0] for line in lines] == [
        "library",
        "library",
        *2 * ["function bodies"],
    ]
    found = operators(tmp_path / "model")
    assert found["SlidingWindowAttention"] == found["TTTMemory"] == 2
    assert domain_version(tmp_path / "model") == 1  # no later contract is used
    assert not found.keys() & {"Cos", "Sin", "Neg", "GatherND", "Expand"}


def test_session_reads_saves_and_resumes(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "model", check=False)
    model = load(tmp_path / "model")
    assert model.manifest.backbone.model_type == "phi"
    assert model.manifest.source["path"] == "generic"
    one = model.session()
    list(one.ingest([TEXT]))
    one.save(tmp_path / "book.allmem")
    other = model.open(tmp_path / "book.allmem")
    answers = ["".join(session.fork().stream("12", sampling=SHORT)) for session in (one, other)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("weights", ["float16", "int8", "int4"])
def test_weights_are_stored_in_fewer_bits(checkpoint: Path, tmp_path: Path, weights: str) -> None:
    lines = checked(checkpoint, tmp_path / "model", weights=weights)
    integers = weights != "float16"
    assert len(lines) == 4 + integers
    assert operators(tmp_path / "model")["QuantisedMatMul"] == 7 * integers
    session = load(tmp_path / "model").session()
    for _ in session.ingest([TEXT]):
        pass
    assert session.position > 0 and not session.pending


def test_onnxruntime_multiplies_integers_too(checkpoint: Path, tmp_path: Path) -> None:
    assert (
        len(checked(checkpoint, tmp_path / "m", weights="int4", matmul_kernel="onnxruntime")) == 5
    )
    assert operators(tmp_path / "m")["MatMulNBits"] == 7


def test_check_notices_a_graph_that_computes_something_else(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = exporting.trace_generic

    def swapped(*arguments: object) -> object:
        model, matrices = honest(*arguments)
        own = "model.layers.{}.mlp.fc1.weight".format
        matrices[own(0)], matrices[own(1)] = matrices[own(1)], matrices[own(0)]
        return model, matrices

    monkeypatch.setattr(exporting, "trace_generic", swapped)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*allowed"):
        export(checkpoint, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_made_in_one_go_it_is_the_same_graph(checkpoint: Path, tmp_path: Path) -> None:
    options = ExportOptions(check=False)
    make(checkpoint.parent / "source", tmp_path / "made", MEMORY, options)
    export(checkpoint, tmp_path / "exported", check=False)
    one, other = ((tmp_path / name / "model.onnx.data") for name in ("made", "exported"))
    assert np.array_equal(np.fromfile(one, np.uint8), np.fromfile(other, np.uint8))


def test_memory_is_disabled_or_frozen_by_its_weights_alone(checkpoint: Path) -> None:
    weights = open_weights(checkpoint)
    own = "model.layers.1.self_attn.allmem"
    alpha, rate = f"{own}.alpha", f"{own}.lr_proj.bias"
    frozen, disabled = (Restrained(weights, memory) for memory in ("frozen", "disabled"))
    assert (frozen.tensor(rate) == SILENCED_RATE).all() and not disabled.tensor(alpha).any()
    assert torch.equal(disabled.tensor(rate), weights.tensor(rate))
    assert torch.equal(frozen.tensor(f"{own}.fw_up"), weights.tensor(f"{own}.fw_up"))


def test_check_that_the_memory_cannot_hold_is_refused_before_anything_is_traced(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "available_memory", lambda: 1 << 20)
    lines: list[str] = []
    with pytest.raises(
        ExportError, match="whole model lies in it; 1.0 MiB are available.*no-check"
    ):
        export(checkpoint, tmp_path / "model", report=lines.append)
    assert not any("tracing" in line for line in lines)


def test_float16_activations_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    arguments = [str(checkpoint), str(tmp_path / "m"), "--activations", "float16"]
    result = CliRunner().invoke(command, arguments)
    assert "phi decoders go the generic path, on which activations are float32" in str(
        result.exception
    )


MOST_USED = (
    "gemma2", "gemma3_text", "gpt_neox", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2",
    "qwen3", "smollm3", "stablelm",
)  # fmt: skip
"""Of both paths; all are read with in the tests that take long."""
NOT_EXPORTED = {"minicpm3": "computes something by the operator 'Expand'"}
"""Families that convert, and what their export is refused for."""
EXPORTED = sorted({*PACKED, *GENERIC} - NOT_EXPORTED.keys())


@pytest.mark.parametrize("kind", MOST_USED)
def test_most_used_families_export(tmp_path: Path, kind: str) -> None:
    write_tiny_decoder(tmp_path / "source", kind)
    made = make(tmp_path / "source", tmp_path / "model", MEMORY)  # its check is part of it
    assert open_package(tmp_path / "model").manifest == made
    assert made.backbone.model_type == kind


def test_sink_logits_reach_the_operator_and_its_version(tmp_path: Path) -> None:
    write_tiny_decoder(tmp_path / "source", "granite_swa")
    for cache in ("float32", "int8"):  # the scales come before them
        made = make(
            tmp_path / "source", tmp_path / cache, MEMORY, ExportOptions(kv_cache_dtype=cache)
        )
        assert made.operators["SlidingWindowAttention"] == 4
        assert domain_version(tmp_path / cache) == 4
        graph = onnx.load(tmp_path / cache / GRAPH_FILE, load_external_data=False).graph
        nodes = [n for n in graph.node if n.op_type == "SlidingWindowAttention"]
        assert [len(node.input) for node in nodes] == [9, 9]
        assert all(bool(node.input[7]) == (cache == "int8") for node in nodes)
        assert len({node.overload for node in nodes}) == 1
        session = load(tmp_path / cache).session()
        for _ in session.ingest([TEXT]):
            pass
        assert session.position > 0


@pytest.mark.parametrize(("kind", "said"), NOT_EXPORTED.items())
def test_families_that_do_not_export_are_refused_by_name(
    tmp_path: Path, kind: str, said: str
) -> None:
    write_tiny_decoder(tmp_path / "source", kind)
    with pytest.raises(ExportError, match=said):
        make(tmp_path / "source", tmp_path / "model", MEMORY)
    assert not (tmp_path / "model").exists()


@pytest.mark.long
@pytest.mark.parametrize("kind", EXPORTED)
def test_every_family_exports_and_runs(tmp_path: Path, kind: str) -> None:
    write_tiny_decoder(tmp_path / "source", kind)
    make(tmp_path / "source", tmp_path / "model", MEMORY)
    session = load(tmp_path / "model").session()
    for _ in session.ingest([TEXT]):
        pass
    assert session.position > 0 and not session.pending
