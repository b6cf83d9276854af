"""A training run: it learns, it survives being cut off, and it leaves an adapter."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_model

from allmem_exporters import AllMemForCausalLM, ConfigError
from allmem_exporters.errors import ConversionError, DataError
from allmem_exporters.finetune import trainer as trainer_module
from allmem_exporters.finetune.adapter import Adapter, save_adapter
from allmem_exporters.finetune.data import Sequence, ShardWriter
from allmem_exporters.finetune.losses import Loss
from allmem_exporters.finetune.metrics import MetricsFile
from allmem_exporters.finetune.run import finetune
from allmem_exporters.finetune.schedule import draw_shape, learning_rate_factor
from allmem_exporters.finetune.settings import Settings, from_dict, read_settings
from allmem_exporters.finetune.trainer import Step

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
    figures = [
        [{k: v for k, v in x.items() if k != "seconds"} for x in MetricsFile(path).read()]
        for path in (tmp_path / "whole/metrics.jsonl", tmp_path / "cut/metrics.jsonl")
    ]
    assert figures[0] == figures[1]
    assert again["heldout"] == whole["heldout"]


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
        ("steps =", "TOML"),
    ],
)
def test_settings_are_checked(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_settings(tmp_path / "s.toml")
