"""A training run: it learns, it survives being cut off, and it leaves an adapter."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_config, tiny_model

from allmem_exporters import AllMemForCausalLM, ConfigError
from allmem_exporters.errors import ConversionError, DataError, TrainingError
from allmem_exporters.finetune import run as run_module
from allmem_exporters.finetune import trainer as trainer_module
from allmem_exporters.finetune.adapter import Adapter, save_adapter
from allmem_exporters.finetune.data import Sequence, ShardWriter
from allmem_exporters.finetune.losses import Loss
from allmem_exporters.finetune.metrics import MetricsFile
from allmem_exporters.finetune.resume import RunFile
from allmem_exporters.finetune.run import finetune
from allmem_exporters.finetune.schedule import draw_shape, learning_rate_factor
from allmem_exporters.finetune.settings import Settings, from_dict, read_settings
from allmem_exporters.finetune.trainer import Step
from allmem_runtime.errors import StorageError

SETTINGS: dict[str, Any] = {
    "steps": 6, "save_every": 2, "evaluate_every": 3, "evaluate_sequences": 2,
    "draws": {"window": [16, 24], "sinks": [0, 4], "chunk": [8, 16]},
    "optimizer": {"learning_rate": 3e-3, "alpha_learning_rate": 3e-2},
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as the converter leaves it: memories not heard yet."""
    model = tiny_model(tiny_config())
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.allmem.alpha)
    folder = tmp_path_factory.mktemp("finetune") / "checkpoint"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight sequences of 96 tokens whose second half repeats the first."""
    folder = tmp_path_factory.mktemp("finetune") / "data"
    generator = np.random.default_rng(0)
    with ShardWriter(folder, vocab_size=320, tokenizer="none") as writer:
        for number in range(8):
            ids = np.tile(generator.integers(3, 320, 48), 2).astype(np.int64)
            counts = np.arange(96) > 0
            kind, split = ("text", "copy")[number % 2], "heldout" if number > 5 else "train"
            writer.add(Sequence(ids, counts, kind, split))
    return folder


def run(checkpoint: Path, data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    show = changes.pop("show", lambda step: None)
    return finetune(checkpoint, data, out, from_dict({**SETTINGS, **changes}), show=show)


def figures(out: Path) -> list[dict[str, Any]]:
    """All figures of a run but the time its steps took."""
    lines = MetricsFile(out / "metrics.jsonl").read()
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("stage", ["model", "layers"])
def test_training_lowers_the_loss_on_what_it_learns(
    checkpoint: Path, data: Path, tmp_path: Path, stage: str
) -> None:
    run(checkpoint, data, tmp_path, stage=stage, steps=60, evaluate_every=60)
    losses = [x["loss"] for x in MetricsFile(tmp_path / "metrics.jsonl").read() if "loss" in x]
    assert np.mean(losses[-12:]) < 0.95 * np.mean(losses[:12])


@pytest.mark.parametrize("killed_after", [1, 3, 4])
def test_run_that_was_cut_off_ends_as_if_it_had_not_been(
    checkpoint: Path, data: Path, tmp_path: Path, killed_after: int
) -> None:
    def kill(step: Step) -> None:
        if step.number == killed_after:
            raise RuntimeError("killed")

    whole = run(checkpoint, data, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(checkpoint, data, tmp_path / "cut", show=kill)
    again = run(checkpoint, data, tmp_path / "cut")
    assert (tmp_path / "cut/run.safetensors").read_bytes() == (
        tmp_path / "whole/run.safetensors"
    ).read_bytes()
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")
    assert again["heldout"] == whole["heldout"]


def test_adapter_can_be_read_by_whoever_may_read_its_folder(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    run(checkpoint, data, tmp_path / "run", steps=1)
    (tmp_path / "plain").touch()
    wanted = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "run/memory.safetensors").stat().st_mode == wanted


def test_interrupt_keeps_the_step_it_came_in(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer_module.model_loss, []

    def interrupted(*arguments: Any) -> Loss:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(trainer_module, "model_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, data, tmp_path)
    seen: list[int] = []
    run(checkpoint, data, tmp_path, show=lambda step: seen.append(step.number))
    assert seen == [4, 5, 6]


@pytest.mark.parametrize("moment", ["evaluation at the end", "saving at the end", "adapter"])
def test_run_that_was_cut_off_at_its_end_keeps_every_step_and_figure(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    settings = {"steps": 5, "evaluate_every": 5, "save_every": 4}
    whole = run(checkpoint, data, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        calls = []

        def killed(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == (1 if moment == "adapter" else 2):
                raise KeyboardInterrupt
            return real(*arguments, **named)

        owner: Any
        owner, name = {
            "evaluation at the end": (trainer_module, "evaluate"),
            "saving at the end": (RunFile, "save"),
            "adapter": (run_module, "save_adapter"),
        }[moment]
        real = getattr(owner, name)
        patch.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, data, tmp_path / "cut", **settings)
    seen: list[int] = []
    again = run(
        checkpoint, data, tmp_path / "cut", show=lambda step: seen.append(step.number), **settings
    )
    assert seen == ([5] if moment == "saving at the end" else [])
    assert again["heldout"] == whole["heldout"]
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")


def test_interrupt_at_a_step_that_is_judged_leaves_no_gap_in_the_figures(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(checkpoint, data, tmp_path / "whole")
    real, calls = trainer_module.model_loss, []

    def interrupted(*arguments: Any) -> Loss:
        calls.append(1)
        if len(calls) == SETTINGS["evaluate_every"]:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "model_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, data, tmp_path / "cut")
    run(checkpoint, data, tmp_path / "cut")
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")


def test_judging_is_told_and_can_be_interrupted_between_two_sequences(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if line.startswith("judging"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        finetune(checkpoint, data, tmp_path / "cut", from_dict(SETTINGS), report=report)
    assert [line for line in lines if "judging" in line] == ["judging on held-out sequence 1 of 2"]
    run(checkpoint, data, tmp_path / "whole")
    run(checkpoint, data, tmp_path / "cut")
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")


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


def test_windows_as_long_as_the_sequences_leave_nothing_to_judge(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    draws = {"window": [100, 120], "sinks": [0, 4], "chunk": [8, 16]}
    manifest = run(checkpoint, data, tmp_path, steps=1, draws=draws)
    assert "kl" not in manifest["heldout"] and manifest["heldout"]["kl_within"] >= 0
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_held_out_sequences_cut_before_what_counts_are_no_error(
    checkpoint: Path, tmp_path: Path
) -> None:
    with ShardWriter(tmp_path / "data", vocab_size=320, tokenizer="none") as writer:
        for split in ("train", "heldout"):
            ids = np.arange(3, 99)
            writer.add(Sequence(ids, ids > (90 if split == "heldout" else 3), "needle", split))
    manifest = run(checkpoint, tmp_path / "data", tmp_path / "run", steps=1, length=48)
    assert "kl" not in manifest["heldout"]


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


def test_step_that_is_not_finite_is_skipped_and_counted(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = trainer_module.model_loss

    def sometimes(*arguments: Any) -> Loss:
        calls.append(1)
        found = real(*arguments)
        return Loss(float("nan"), found.tokens) if len(calls) == 2 else found

    monkeypatch.setattr(trainer_module, "model_loss", sometimes)
    assert run(checkpoint, data, tmp_path)["skipped"] == 1


def test_adapter_brings_the_trained_memories(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    manifest = run(checkpoint, data, tmp_path)
    adapter = Adapter(tmp_path / "memory.safetensors")
    assert adapter.manifest == json.loads(json.dumps(manifest))
    model = AllMemForCausalLM.from_pretrained(checkpoint)
    before = {name: p.clone() for name, p in model.named_parameters()}
    adapter.apply(model)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(".allmem." in name for name in changed)
    assert all(f"model.layers.{i}.allmem.alpha" in changed for i in range(2))
    again = run(checkpoint, data, tmp_path / "on", steps=1) and finetune(
        checkpoint, data, tmp_path / "from", from_dict({**SETTINGS, "steps": 1}),
        start=tmp_path / "memory.safetensors",
    )  # fmt: skip
    assert again["started_from"]


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


def test_draws_stay_in_their_ranges_and_follow_the_seed() -> None:
    draws = Settings().draws
    shapes = [draw_shape(draws, 0, step) for step in range(300)]
    assert all(512 <= s.window <= 2048 and 0 <= s.sinks <= 128 for s in shapes)
    assert all(256 <= s.chunk <= min(1024, s.window) for s in shapes)
    assert min(s.window for s in shapes) < 600 and max(s.window for s in shapes) > 1800
    assert shapes == [draw_shape(draws, 0, step) for step in range(300)]
    assert shapes != [draw_shape(draws, 1, step) for step in range(300)]


def test_rate_rises_stays_and_falls() -> None:
    factors = [learning_rate_factor(step, 100, 0.1, 0.2) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[-1] == pytest.approx(0.05)
    assert factors[9:81] == [1.0] * 72
    assert min(factors) > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stpes = 3", "did you mean 'steps'"),
        ("steps = 0", "steps is 0"),
        ("stage = 'all'", "allowed: layers, model"),
        ("[draws]\nwindow = [512]", "two numbers"),
        ("[draws]\nwindow = [2048, 512]", "draws.window"),
        ("draws = 3", "must be a table"),
        ("steps = 1.5", "type int"),
        ("[optimizer]\nbetas = [0.9, 1.0]", "optimizer.betas"),
        ("[optimizer]\nclip = 0", "optimizer.clip"),
        ("steps =", "TOML"),
    ],
)
def test_settings_are_checked(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_settings(tmp_path / "s.toml")


def test_run_that_never_recovers_is_given_up(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "MOST_SKIPPED", 2)
    monkeypatch.setattr(trainer_module, "model_loss", lambda *_: Loss(float("nan"), 1))
    with pytest.raises(TrainingError, match="2 steps in a row"):
        run(checkpoint, data, tmp_path)


def test_writing_is_not_trained_on_from_a_twin_that_never_writes(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    run(checkpoint, data, tmp_path / "twin", writes=False, steps=1)
    start = tmp_path / "twin/memory.safetensors"
    with pytest.raises(ConversionError, match="never writes"):
        finetune(checkpoint, data, tmp_path / "on", from_dict(SETTINGS), start=start)
    finetune(checkpoint, data, tmp_path / "on", from_dict({**SETTINGS, "writes": False}),
             start=start)  # fmt: skip


def test_length_that_cuts_all_answers_off_is_refused_and_some_are_told(
    checkpoint: Path, tmp_path: Path
) -> None:
    with ShardWriter(tmp_path / "data", vocab_size=320, tokenizer="none") as writer:
        for first in (10, 80):
            ids = np.arange(96, dtype=np.int64) + 3
            writer.add(Sequence(ids, np.arange(96) >= first, "copy", "train"))
    said: list[str] = []
    short = from_dict({**SETTINGS, "steps": 1, "length": 60})
    finetune(checkpoint, tmp_path / "data", tmp_path / "a", short, report=said.append)
    assert any("1 of 2 sequences have nothing to learn from within 60" in line for line in said)
    with pytest.raises(DataError, match="within 8 tokens"):
        finetune(checkpoint, tmp_path / "data", tmp_path / "b",
                 from_dict({**SETTINGS, "steps": 1, "length": 8}))  # fmt: skip


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ([16, 16], []),
        ([96, 96], ["training's smallest window", "the window of held-out figures"]),
        ([16, 600], ["the window of held-out figures"]),
    ],
    ids=["small", "as long as the texts", "the middle is"],
)
def test_windows_that_hold_whole_sequences_are_told(
    checkpoint: Path, tmp_path: Path, window: list[int], told: list[str]
) -> None:
    with ShardWriter(tmp_path / "data", vocab_size=320, tokenizer="none") as writer:
        for split in ("train", "heldout"):
            ids = np.arange(96, dtype=np.int64) + 3
            writer.add(Sequence(ids, np.ones(96, bool), "copy", split))
    said: list[str] = []
    draws = {"window": window, "sinks": [0, 0], "chunk": [16, 16]}
    settings = from_dict({**SETTINGS, "steps": 1, "length": 0, "draws": draws})
    finetune(checkpoint, tmp_path / "data", tmp_path / "run", settings, report=said.append)
    notices = [line for line in said if line.startswith("notice")]
    assert len(notices) == len(told)
    assert all(name in line for name, line in zip(told, notices, strict=True))
