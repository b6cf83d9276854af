"""A run, checkpoint, data or adapter that does not belong to the others is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from exporters.finetune.training import SETTINGS, run
from safetensors import safe_open
from safetensors.torch import save_file

from allmem_exporters import AllMemForCausalLM
from allmem_exporters.errors import ConversionError, DataError
from allmem_exporters.finetune.metrics import MetricsFile
from allmem_exporters.finetune.run import finetune
from allmem_exporters.finetune.settings import from_dict
from allmem_exporters.model.adapter import Adapter, save_adapter
from allmem_runtime.errors import StorageError


def test_run_of_a_model_with_other_memories_is_not_gone_on_with(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    run(checkpoint, data, tmp_path / "run")
    model = AllMemForCausalLM.from_pretrained(checkpoint)
    model.config.inner_loss = "l2"
    model.save_pretrained(tmp_path / "l2")
    with pytest.raises(DataError, match="memory"):
        run(tmp_path / "l2", data, tmp_path / "run")


def test_run_file_without_a_memory_of_the_model_is_refused(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    run(checkpoint, data, tmp_path)
    path = tmp_path / "run.safetensors"
    with safe_open(path, framework="pt") as file:
        kept, text = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    alpha = "model.layers.0.allmem.alpha"
    save_file({**kept, alpha: kept[alpha][:3].clone()}, path, metadata=text)
    with pytest.raises(DataError, match="alpha"):
        run(checkpoint, data, tmp_path)
    save_file({name: t for name, t in kept.items() if name != alpha}, path, metadata=text)
    with pytest.raises(DataError, match="alpha"):
        run(checkpoint, data, tmp_path)


def test_windows_by_head_are_given_after_training(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    model = AllMemForCausalLM.from_pretrained(checkpoint)
    model.config.windows = [[24, 48], [24, 24]]
    model.save_pretrained(tmp_path / "by head")
    with pytest.raises(DataError, match="windows of their own"):
        run(tmp_path / "by head", data, tmp_path / "run")


@pytest.mark.parametrize("fault", ["half", "llama", "no memory", "no object"])
def test_checkpoint_that_is_none_is_refused(
    checkpoint: Path, data: Path, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if fault == "half":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif fault == "llama":
        config.write_text(config.read_text().replace('"allmem"', '"llama"'))
    elif fault == "no memory":
        with safe_open(weights, framework="pt") as file:
            kept = {n: file.get_tensor(n) for n in file.keys() if ".allmem." not in n}  # noqa: SIM118
        save_file(kept, weights, metadata={"format": "pt"})
    else:
        config.write_text("[]")
    with pytest.raises(ConversionError, match="checkpoint"):
        run(folder, data, tmp_path / "run")


def test_data_of_another_tokenizer_is_refused(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    (tmp_path / "checkpoint/tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="tokenizer"):
        run(tmp_path / "checkpoint", data, tmp_path / "run")


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.png", "run.safetensors"])
def test_run_is_not_written_where_a_link_in_its_folder_leads(
    checkpoint: Path, data: Path, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(precious)
    with pytest.raises(ConversionError, match=f"{name} is a link to .*precious, outside"):
        run(checkpoint, data, tmp_path / "run")
    assert precious.read_bytes() == b"kept"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_in_the_place_of_metrics_is_not_waited_for(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(ConversionError, match="not a regular file"):
        run(checkpoint, data, tmp_path)


@pytest.mark.parametrize("name", ["index.json", "tokens.bin", "counts.bin"])
def test_data_is_not_read_through_a_link_out_of_its_folder(
    checkpoint: Path, data: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConversionError, match=f"{name} is a link to .*elsewhere, outside"):
        run(checkpoint, tmp_path / "data", tmp_path / "run")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_checkpoint_is_not_read_through_a_link_out_of_it(
    checkpoint: Path, data: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    (folder / "tokenizer.json").write_text("{}")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConversionError, match=f"{name} is a link to .*elsewhere, outside"):
        run(folder, data, tmp_path / "run")


def test_lines_of_others_among_the_metrics_are_left_out(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.add("step", 1, loss=2.0)
    odd = ["5", "[]", "{", "[" * 100_000, '{"what": "step"}', '{"what": "step", "step": 2}',
           '{"what": "heldout", "step": "2"}']  # fmt: skip
    with metrics.path.open("ab") as file:
        file.write("\n".join(odd).encode() + b"\n\xff\n")
    metrics.add("step", 3, loss=1.0)
    assert [line["step"] for line in metrics.read()] == [1, 3]
    metrics.keep_until(1)
    assert [line["step"] for line in metrics.read()] == [1]


def test_adapter_that_cannot_be_written_says_so(checkpoint: Path, tmp_path: Path) -> None:
    model = AllMemForCausalLM.from_pretrained(checkpoint)
    with pytest.raises(StorageError, match="could not be written"):
        save_adapter(model, tmp_path / "missing" / "a", {}, "")


def test_run_with_other_settings_is_not_gone_on_with(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    run(checkpoint, data, tmp_path)
    with pytest.raises(DataError, match="settings"):
        run(checkpoint, data, tmp_path, seed=1)


def test_adapter_refuses_what_it_was_not_trained_on(checkpoint: Path, tmp_path: Path) -> None:
    model = AllMemForCausalLM.from_pretrained(checkpoint)
    save_adapter(model, tmp_path / "a", {}, "another digest")
    with pytest.raises(ConversionError, match="another decoder"):
        Adapter(tmp_path / "a").apply(model)
    model.config.inner_loss = "l2"
    with pytest.raises(ConversionError, match="inner_loss"):
        Adapter(tmp_path / "a").apply(model)
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:1000])
    with pytest.raises(ConversionError, match="cannot be read"):
        Adapter(tmp_path / "b")


def test_writing_is_not_trained_on_from_a_twin_that_never_writes(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    run(checkpoint, data, tmp_path / "twin", writes=False, steps=1)
    start = tmp_path / "twin/memory.safetensors"
    with pytest.raises(ConversionError, match="never writes"):
        finetune(checkpoint, data, tmp_path / "on", from_dict(SETTINGS), start=start)
    finetune(checkpoint, data, tmp_path / "on", from_dict({**SETTINGS, "writes": False}),
             start=start)  # fmt: skip
