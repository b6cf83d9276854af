"""An exported folder: what is in it, that it computes as PyTorch does, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import FAMILIES
from tiny import write_tiny_checkpoint

from allmem_exporters.errors import ExportError
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.weights import WeightsInMemory
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.float_noise import relative_rms
from allmem_exporters.onnx.package_writer import check_destination
from allmem_exporters.onnx.sample_text import random_cuts
from allmem_exporters.onnx.validate import validate
from allmem_runtime.config import Manifest
from allmem_runtime.files.temporary import temporary_name
from allmem_runtime.spec import GRAPH_FILE, MANIFEST_FILE, METADATA_KEY, WEIGHTS_FILE


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES.keys())
def test_exported_graph_computes_what_pytorch_computes(tmp_path: Path, config: object) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", config)
    lines: list[str] = []
    export(checkpoint, tmp_path / "model", report=lines.append)
    checked = [line for line in lines if "logits" in line]
    assert len(checked) == 5, "library and bodies, each in two ways, and the whole graph"


def test_float16_weights_halve_the_file_and_pass_the_check(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "wide", check=False)
    export(checkpoint, tmp_path / "narrow", weights="float16")
    wide = (tmp_path / "wide" / WEIGHTS_FILE).stat().st_size
    narrow = (tmp_path / "narrow" / WEIGHTS_FILE).stat().st_size
    assert narrow < 0.75 * wide, "all but the small float32 constants"


def test_check_notices_a_changed_weight(tiny_checkpoint_dir: Path, tiny_model_dir: Path,
                                        tmp_path: Path) -> None:  # fmt: skip
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    data = np.fromfile(folder / WEIGHTS_FILE, np.float32)
    data[: data.size // 8] *= 1.01
    data.tofile(folder / WEIGHTS_FILE)
    model = AllMemForCausalLM.from_pretrained(tiny_checkpoint_dir).eval()
    with pytest.raises(ExportError, match=r"differs from PyTorch.*allowed"):
        validate(folder, WeightsInMemory(model))


def test_manifest_lies_beside_the_graph_and_inside_it(tiny_model_dir: Path) -> None:
    beside = (tiny_model_dir / MANIFEST_FILE).read_text(encoding="utf-8")
    graph = onnx.load(tiny_model_dir / GRAPH_FILE, load_external_data=False)
    inside = {entry.key: entry.value for entry in graph.metadata_props}[METADATA_KEY]
    assert beside == inside
    manifest = Manifest.from_json(inside, "model.onnx")
    assert (manifest.window, manifest.sinks, manifest.chunk) == (24, 4, 16)
    assert set(manifest.files) == {WEIGHTS_FILE, "tokenizer.json", "chat_template.jinja"}


def test_graph_loads_on_old_runtimes_and_its_state_never_grows(tiny_model_dir: Path) -> None:
    graph = onnx.load(tiny_model_dir / GRAPH_FILE, load_external_data=False)
    assert graph.ir_version == 10
    assert {o.domain: o.version for o in graph.opset_import}[""] == 20
    dynamic = {
        value.name: [d.dim_param for d in value.type.tensor_type.shape.dim if d.dim_param]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert {name: dims for name, dims in dynamic.items() if dims} == {
        "input_ids": ["time"],
        "logit_index": ["rows"],
        "logits": ["rows"],
    }


def test_each_state_tensor_has_exactly_one_consumer(tiny_model_dir: Path) -> None:
    graph = onnx.load(tiny_model_dir / GRAPH_FILE, load_external_data=False).graph
    uses = [name for node in graph.node for name in node.input if name.startswith("past.")]
    assert sorted(uses) == sorted(v.name for v in graph.input if v.name.startswith("past."))


def test_export_names_no_path_of_the_machine(tiny_model_dir: Path) -> None:
    graph = (tiny_model_dir / GRAPH_FILE).read_bytes()
    for trace in (b".py", str(Path.cwd()).encode(), str(Path.home()).encode()):
        assert trace not in graph


def test_failed_export_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ExportError, match=r"no tokenizer\.json"):
        export(checkpoint, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_failed_export_keeps_the_earlier_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    earlier = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    before = (earlier / GRAPH_FILE).read_bytes()
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", seed=5)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ExportError):
        export(checkpoint, earlier)
    assert (earlier / GRAPH_FILE).read_bytes() == before


def test_export_replaces_an_earlier_one_but_nothing_else(
    tiny_checkpoint_dir: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    earlier = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    export(tiny_checkpoint_dir, earlier, check=False)
    foreign = tmp_path / "photographs"
    foreign.mkdir()
    (foreign / "1.jpg").write_bytes(b"x")
    with pytest.raises(ExportError, match="holds no exported model"):
        export(tiny_checkpoint_dir, foreign, check=False)
    assert (foreign / "1.jpg").exists()


def test_command_says_what_is_missing(tmp_path: Path) -> None:
    from allmem_exporters.commands.export import export as command

    result = CliRunner().invoke(command, [str(tmp_path / "nowhere"), str(tmp_path / "model")])
    assert isinstance(result.exception, ExportError)
    assert "nowhere" in str(result.exception)
    assert "allmem convert" in str(result.exception)


def test_end_tokens_come_from_configuration_and_generation_settings(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    settings_text = json.dumps({"eos_token_id": [2, 0]})
    (checkpoint / "generation_config.json").write_text(settings_text, encoding="utf-8")
    manifest = export(checkpoint, tmp_path / "model", check=False)
    assert manifest.end_tokens == (2, 0)


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 300), chunk=st.integers(1, 40), seed=st.integers(0, 9))
def test_random_cuts_cover_everything_and_cross_no_boundary(
    length: int, chunk: int, seed: int
) -> None:
    cuts = random_cuts(length, chunk, seed)
    assert cuts[0][0] == 0 and cuts[-1][1] == length
    assert all(end == start for (_, end), (start, _) in zip(cuts, cuts[1:], strict=False))
    assert all(first // chunk == (end - 1) // chunk for first, end in cuts)


def test_relative_rms_of_a_difference_to_nothing_is_infinite() -> None:
    assert relative_rms(np.ones(3), np.zeros(3)) == float("inf")
    assert relative_rms(np.zeros(3), np.zeros(3)) == 0.0


@pytest.mark.parametrize("name", ["book.allmem", "notes.txt", ".hidden", "folder"])
def test_what_lies_beside_an_earlier_export_is_not_deleted_unasked(
    tiny_model_dir: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "prepared").mkdir()
    temporary_name(folder / "prepared").mkdir()  # a killed writer left it
    check_destination(folder, force=False)
    (folder / name).mkdir() if name == "folder" else (folder / name).touch()
    with pytest.raises(ExportError, match=f"holds {name} beside an exported model") as caught:
        check_destination(folder, force=False)
    assert "--force" in caught.value.hint
    check_destination(folder, force=True)
