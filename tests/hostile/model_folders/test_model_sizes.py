"""A manifest gets no memory for the asking: its state is held against its files and the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import stand_in
from hostile.model_folders.spoiling import refused, rewrite

from allmem_runtime import DeviceError, Model, load
from allmem_runtime.config import Backbone
from allmem_runtime.engine import state_room
from allmem_runtime.machine import available_memory


def test_state_out_of_proportion_to_its_files_is_refused(folder: Path) -> None:
    wide = Backbone("llama", 2, 8, 16, 8, 1, 1024, 330, 2048)
    files = {
        name: (folder / name).read_bytes()
        for name in ("tokenizer.json", "model.onnx.data", "generation_config.json")
    }
    rewrite(folder, stand_in.manifest(files, backbone=wide, window=1 << 20).to_json())
    assert "wants a state of 8.0 GiB" in refused(folder).message


def test_state_that_memory_does_not_hold_is_refused_before_it_is_taken(
    toy: Model, toy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = toy.package.manifest.state.nbytes
    monkeypatch.setattr(state_room, "available_memory", lambda: state // 2)
    with pytest.raises(DeviceError, match=r"The state of .* takes .* are available") as caught:
        load(toy_dir, device="cpu", operators="portable").session()
    assert "tokens would fit" in caught.value.hint


def test_available_memory_is_what_the_system_says(tmp_path: Path) -> None:
    said = tmp_path / "meminfo"
    said.write_text("MemTotal: 9 kB\nMemAvailable:      7 kB\n")
    assert available_memory(said) == 7 * 1024
    assert available_memory(tmp_path / "none") is None
