"""The rows of a comparison: made from one checkpoint, their weights on the disk once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import tiny_config, write_tiny_checkpoint

from allmem_exporters.ablation.comparison_models import OWN_DATA_FILE, share
from allmem_exporters.onnx.export import export
from allmem_runtime import load
from allmem_runtime.cli import allmem
from allmem_runtime.evaluation.rows import grouped, parse_rows
from allmem_runtime.files.package import open_package
from allmem_runtime.spec import WEIGHTS_FILE

IDS = (np.arange(3, 103) % 300).tolist()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "checkpoint"
    # Large enough that the weights of the decoder are most of what is written.
    return write_tiny_checkpoint(folder, tiny_config(hidden_size=64, intermediate_size=512))


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "out"
    arguments = ["eval", "rows", checkpoint, folder, "--window", 20, "--chunk", 10,
                 "--longest", "128", "--twin", checkpoint]  # fmt: skip
    done = CliRunner().invoke(allmem, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 6
    return folder


def logits(folder: Path) -> np.ndarray:
    session = load(folder, device="cpu", threads=1).session(undo=False)
    return np.asarray(session.feed(IDS, logits="last"))


def test_a_folder_of_rows_is_all_that_a_table_needs(made: Path) -> None:
    rows = parse_rows([str(made)])
    assert [row.name for row in rows] == [
        "full attention", "window + sinks", "AllMem", "AllMem, writes off", "AllMem, reset",
        "twin that never writes",
    ]  # fmt: skip
    assert [row.reset for row in rows] == [False, False, False, False, True, False]
    groups = {group.rows[0].name: group.package.manifest for group in grouped(rows)}
    assert groups["full attention"].window == 128 and groups["full attention"].sinks == 0
    assert {m.window for name, m in groups.items() if name != "full attention"} == {20}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("allmem", {}),
        ("window", {"memory": "disabled"}),
        ("frozen", {"memory": "frozen"}),
        ("full", {"memory": "disabled", "window": 128, "sinks": 0}),
    ],
)
def test_a_row_is_the_export_that_it_replaces(
    made: Path, checkpoint: Path, tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    sizes = {"window": 20, "chunk": 10}
    export(checkpoint, tmp_path / "alone", **{**sizes, **options, "check": False})
    assert np.array_equal(logits(made / name), logits(tmp_path / "alone"))
    open_package(made / name).verify()


def test_weights_that_rows_share_lie_on_the_disk_once(made: Path) -> None:
    base = (made / "allmem" / WEIGHTS_FILE).stat()
    for name in ("window", "full", "frozen", "twin"):
        assert (made / name / WEIGHTS_FILE).stat().st_ino == base.st_ino
        own = made / name / OWN_DATA_FILE
        assert not own.exists() or own.stat().st_size < base.st_size / 4
    assert (made / "window" / OWN_DATA_FILE).exists(), "a disabled memory has other weights"


def test_a_model_without_links_stays_as_it_was(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, memory in (("a", "enabled"), ("b", "disabled")):
        export(checkpoint, tmp_path / name, memory=memory, check=False)

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    before = {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}
    monkeypatch.setattr(os, "link", refuse)
    told: list[str] = []
    share(tmp_path / "a", tmp_path / "b", told.append)
    assert {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()} == before
    assert "no hard link" in told[0]
