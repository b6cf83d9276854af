"""What an export says before and while it works: room on the disk, memory, time that is left."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from tiny import tiny_config, write_tiny_checkpoint

from allmem_exporters.errors import ExportError
from allmem_exporters.onnx import room
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.room import needed_memory
from allmem_exporters.progress import Progress
from allmem_runtime.available_memory import available_memory

Usage = namedtuple("Usage", "total used free")


def test_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 30, 1 << 30, 1 << 20))
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"takes .*MiB; the disk of .* has 1\.0 MiB free") as told:
        export(checkpoint, tmp_path / "model", report=lines.append)
    assert "--weights int4" in told.value.hint
    assert not any(line.startswith("writing") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_too_little_memory_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setattr(room, "available_memory", lambda: 100 << 20)
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"takes .* of memory; 100 MiB are available") as told:
        export(checkpoint, tmp_path / "model", report=lines.append)
    assert "--no-check" in told.value.hint
    assert "tracing" not in lines


def test_memory_grows_with_a_layer_and_not_with_their_number() -> None:
    def needed(**changes: object) -> int:
        return needed_memory(tiny_config(**changes), table_bytes=0, tokens=100)

    assert needed(num_hidden_layers=2) == needed(num_hidden_layers=40)
    assert needed(intermediate_size=4800) > needed(intermediate_size=48)
    found = available_memory()
    assert found is None or found > 1 << 20


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
