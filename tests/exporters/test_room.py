"""What an export says before and while it works: room on the disk, memory, time that is left."""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from checkpoints import write_gguf
from tiny import tiny_config, write_tiny_checkpoint

from allmem_exporters.errors import ExportError
from allmem_exporters.make import make
from allmem_exporters.model.checkpoint import CheckpointWeights
from allmem_exporters.model.state import state_spec
from allmem_exporters.onnx import room
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.room import check_memory, file_bytes, needed_memory
from allmem_exporters.progress import Progress
from allmem_exporters.quantization.blocks import InMemory
from allmem_exporters.quantization.deferred import Storing
from allmem_exporters.quantization.formats import stored_format
from allmem_runtime.machine import available_memory

Usage = namedtuple("Usage", "total used free")


def full(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 1 << 40, free))


def test_full_disk_is_told_before_the_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    write_gguf(tmp_path / "tiny.gguf")
    full(monkeypatch, 1 << 20)
    for begin, source in ((export, checkpoint), (make, tmp_path / "tiny.gguf")):
        lines: list[str] = []
        with pytest.raises(ExportError, match=r"takes .*MiB; the disk of .* has 1\.0 MiB free"):
            begin(source, tmp_path / "a" / "model", report=lines.append)
        assert lines == [f"opening {source}"]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "tiny.gguf"}


def test_graph_that_is_larger_than_was_foreseen_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr(room, "file_bytes", lambda config, storage: 0)
    full(monkeypatch, 64 << 20)
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"takes .*MiB; the disk of .* has 64\.0 MiB free"):
        export(checkpoint, tmp_path / "model", report=lines.append)
    assert "tracing" in lines and not any(line.startswith("writing") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("given", "fits", "said"),
    [
        ({}, "float16", r"store fewer bits: --weights float16 takes [\d.]+ MiB\."),
        ({"weights": "float16"}, "int8", r"store fewer bits: --weights int8 takes [\d.]+ MiB\."),
        ({"weights": "int8"}, "int4", r"store fewer bits: --weights int4 takes [\d.]+ MiB\."),
        ({"weights": "int8"}, None, r"another folder; even --weights int4 takes [\d.]+ MiB\."),
        ({"weights": "int4"}, None, r"Make room, or name another folder\."),
        ({"activations": "float16"}, None, r"Make room, or name another folder\."),
    ],
)
def test_full_disk_is_told_with_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict, fits: str | None, said: str
) -> None:
    config = tiny_config(num_hidden_layers=400)
    beside = 64 << 20
    full(monkeypatch, beside + file_bytes(config, fits) if fits else 1 << 20)
    with pytest.raises(ExportError) as told:
        room.check_room(config, ExportOptions(check=False, **given), tmp_path / "model")
    assert re.search(said, told.value.hint), told.value.hint


def test_too_little_memory_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr(room, "available_memory", lambda: 100 << 20)
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"takes .* of memory; 100 MiB are available") as told:
        export(checkpoint, tmp_path / "model", report=lines.append)
    assert told.value.hint == "Close other programs."
    assert "tracing" not in lines


def test_what_would_fit_is_told_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(num_hidden_layers=40)
    ways = {"storage": "int4", "laid_out": False}
    for tokens, said in ((100, "--weights int4"), (None, "--weights int4 --no-check")):
        least = needed_memory(config, **ways, tokens=tokens)
        monkeypatch.setattr(room, "available_memory", lambda least=least: least)
        with pytest.raises(ExportError) as told:
            check_memory(config, storage="float32", matmul_kernel=None, tokens=100)
        assert f"export with {said}, which takes" in told.value.hint
    check_memory(config, storage="int4", matmul_kernel=None, tokens=None)


def test_memory_grows_with_a_layer_and_only_for_the_check_with_their_number() -> None:
    def needed(tokens: int | None = None, **changes: object) -> int:
        config = tiny_config(**changes)
        return needed_memory(config, storage="int8", laid_out=False, tokens=tokens)

    assert needed(num_hidden_layers=2) == needed(num_hidden_layers=40)
    assert needed(intermediate_size=4800) > needed(intermediate_size=48)
    few, many = (needed(100, num_hidden_layers=n) for n in (40, 80))  # the whole graph takes most
    one, other = (tiny_config(num_hidden_layers=n) for n in (40, 80))
    states = state_spec(other).nbytes - state_spec(one).nbytes
    assert many - few == 2 * states + file_bytes(other, "int8") - file_bytes(one, "int8")
    assert (
        needed(100, num_hidden_layers=2, intermediate_size=480_000)
        - needed(100, num_hidden_layers=2, intermediate_size=48)
        > 3 * 4 * 3 * 479_000 * 32
    ), "three copies of a large layer in float32, and its streams"
    found = available_memory()
    assert found is None or found > 1 << 20


def test_size_of_the_file_is_known_before_it_is_made(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    export(checkpoint, tmp_path / "model", check=False)
    found = (tmp_path / "model" / "model.onnx.data").stat().st_size
    assert file_bytes(CheckpointWeights(checkpoint).config, "float32") == pytest.approx(found, 0.1)


def test_time_left_follows_from_what_was_done() -> None:
    now, lines = [0.0], []
    progress = Progress("writing", lines.append, clock=lambda: now[0])
    for second in range(1, 101):
        now[0] = float(second)
        progress(second, 200)
    assert 8 <= len(lines) <= 10, "a line in ten seconds"
    assert lines[0].startswith("writing: 5 %, 3m10s") and lines[0].endswith("left")
    progress(200, 200)
    assert len(lines) <= 10, "none at the end"


@pytest.mark.parametrize("weights", ["float16", "int8", "int4"])
def test_progress_is_told_within_a_large_matrix(weights: str) -> None:
    told: list[tuple[int, int]] = []
    storing = Storing(lambda done, total: told.append((done, total)))
    matrix = InMemory(torch.randn(3000, 640))
    stored = [storing.later(stored_format(weights), matrix, name) for name in ("one", "two")]
    for one in stored:
        for part in one.tensors.values():
            part.load()
    steps = [done for done, _ in told]
    assert {total for _, total in told} == {2 * 3000 * 640}
    assert steps == sorted(steps)
    assert sum(0 < step < 3000 * 640 for step in steps) > 3
    assert sum(3000 * 640 < step < 2 * 3000 * 640 for step in steps) > 3
