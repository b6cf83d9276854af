"""From training data to a table and to a model whose heads have windows of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import tiny_config, write_tiny_checkpoint

import allmem_runtime
from allmem_exporters.ablation.comparison_models import export_comparison_models
from allmem_exporters.errors import ExportError
from allmem_exporters.finetune.data import Sequence, ShardWriter
from allmem_exporters.finetune.data.shard_format import tokenizer_digest
from allmem_exporters.heads.head_table import HeadTable
from allmem_exporters.heads.run import HeadSettings, band_windows, find_heads
from allmem_exporters.onnx.export import export
from allmem_runtime.cli import allmem
from allmem_runtime.files.package import open_package


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("heads") / "checkpoint")


@pytest.fixture(scope="module")
def data(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "data"
    random = np.random.default_rng(0)
    digest = tokenizer_digest(checkpoint)
    with ShardWriter(folder, vocab_size=320, tokenizer=digest) as writer:
        for number in range(6):
            ids = np.tile(random.integers(3, 320, 48), 2).astype(np.int64)
            kind = ("text", "copy", "common")[number % 3]
            writer.add(Sequence(ids, np.arange(96) >= 60, kind, "train"))
    return folder


@pytest.fixture(scope="module")
def table(checkpoint: Path, data: Path) -> Path:
    out = checkpoint.parent / "heads.json"
    arguments = [checkpoint, data, out, "--shortest", 16, "--sinks", 4, "--threads", 1]
    done = CliRunner().invoke(allmem, ["heads", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert "4 of 4" in done.output and "left" in done.output and "common" not in done.output
    return out


def test_the_table_tells_of_every_head_and_kind(table: Path) -> None:
    found = HeadTable.read(table)
    assert found.windows == (16, 32, 64, 96)
    assert np.shape(found.worth) == (2, 2, 3)
    assert found.sequences == {"text": 2, "copy": 2}
    assert sum(np.ravel(found.worth)) == pytest.approx(1.0, abs=0.2)
    assert not table.with_name("heads.json.part").exists()


def test_windows_double_up_to_the_longest_sequence() -> None:
    assert band_windows(256, 2048) == [256, 512, 1024, 2048]
    assert band_windows(256, 600) == [256, 512, 600]
    assert band_windows(256, 200) == [256]


def test_a_run_that_was_killed_goes_on_where_it_stopped(
    checkpoint: Path, data: Path, table: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def die(line: str) -> None:
        if line.startswith("3 of 4"):
            raise Killed

    settings = HeadSettings(shortest=16, sinks=4, threads=1)
    out = tmp_path / "heads.json"
    with pytest.raises(Killed):
        find_heads(checkpoint, data, out, settings, report=die)
    lines: list[str] = []
    find_heads(checkpoint, data, out, settings, report=lines.append)
    assert [line.split(":")[0] for line in lines] == ["4 of 4"]
    assert out.read_bytes() == table.read_bytes()


def test_an_export_gives_windows_within_the_budget_and_they_are_checked(
    checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    uniform = export(checkpoint, tmp_path / "uniform", check=False)
    made = export(checkpoint, tmp_path / "model", windows=table, report=lines.append)
    assert made.windows is not None
    given = [window for row in made.windows for window in row]
    assert min(given) == 16 < max(given) == made.window
    assert made.state.nbytes <= uniform.state.nbytes
    assert any("windows by head" in line for line in lines)
    budget = uniform.state.nbytes - 500
    small = export(checkpoint, tmp_path / "small", windows=table, state_budget=budget, check=False)
    assert small.state.nbytes <= budget

    model = allmem_runtime.load(tmp_path / "model")
    session = model.session()
    for _ in session.ingest("The river went round the old mill. " * 20):
        pass
    session.save(tmp_path / "s.allmem")
    assert model.open(tmp_path / "s.allmem").position == session.position
    with pytest.raises(allmem_runtime.SessionFileError) as refusal:
        allmem_runtime.load(tmp_path / "uniform").open(tmp_path / "s.allmem")
    there, here = refusal.value.message.split("this model is")
    assert "in 2 layers, 40 to 72 rows of float16 a layer, windows by head" in there
    assert "in 2 layers, 28 rows of float16 for every head" in here


def test_a_table_of_another_model_and_a_budget_without_one_are_refused(
    checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    values = json.loads(table.read_text(encoding="utf-8"))
    other.write_text(json.dumps(values | {"decoder": "0" * 64}), encoding="utf-8")
    with pytest.raises(ExportError, match="another decoder .weights 000000000000"):
        export(checkpoint, tmp_path / "model", windows=other, check=False)
    with pytest.raises(ExportError, match="needs a head table"):
        export(checkpoint, tmp_path / "model", state_budget=1 << 20)
    with pytest.raises(ExportError, match="of 9.8 KiB is too small"):
        export(checkpoint, tmp_path / "model", windows=table, state_budget=10_000, check=False)


def test_the_models_to_compare_have_one_window_beside_windows_by_head(
    checkpoint: Path, table: Path, tmp_path: Path
) -> None:
    rows = export_comparison_models(checkpoint, tmp_path / "rows", longest=90, windows=table)
    manifests = {row.name: open_package(row.folder).manifest for row in rows}
    by_head = manifests["AllMem"].windows
    assert by_head is not None
    for name in ("window + sinks", "AllMem, writes off"):
        assert manifests[name].windows == by_head
    one, most = manifests["AllMem, one window"], manifests["AllMem"].state.nbytes
    assert one.windows is None and manifests["full attention"].windows is None
    assert manifests["full attention"].window >= 90
    row = one.backbone.layers * one.backbone.kv_heads * 2 * 2 * one.backbone.head_dim
    assert most - row < one.state.nbytes <= most


def test_a_checkpoint_that_has_windows_by_head_keeps_them_in_the_models_to_compare(
    checkpoint: Path, tmp_path: Path
) -> None:
    by_head = write_tiny_checkpoint(tmp_path / "by head", tiny_config(windows=[[24, 40], [16, 16]]))
    rows = export_comparison_models(by_head, tmp_path / "rows", longest=90)
    manifests = {row.name: open_package(row.folder).manifest for row in rows}
    for name in ("AllMem", "window + sinks", "AllMem, writes off"):
        assert manifests[name].windows == ((24, 40), (16, 16))
    assert manifests["AllMem, one window"].window == 24
