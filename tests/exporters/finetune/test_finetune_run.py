"""A training run learns, counts the steps it skips, and leaves an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporters.finetune.training import SETTINGS, run

from allmem_exporters import AllMemForCausalLM
from allmem_exporters.errors import DataError, TrainingError
from allmem_exporters.finetune import trainer as trainer_module
from allmem_exporters.finetune.data import Sequence, ShardWriter
from allmem_exporters.finetune.losses import Loss
from allmem_exporters.finetune.metrics import MetricsFile
from allmem_exporters.finetune.run import finetune
from allmem_exporters.finetune.settings import from_dict
from allmem_exporters.model.adapter import Adapter


@pytest.mark.parametrize("stage", ["model", "layers"])
def test_training_lowers_the_loss_on_what_it_learns(
    checkpoint: Path, data: Path, tmp_path: Path, stage: str
) -> None:
    run(checkpoint, data, tmp_path, stage=stage, steps=60, evaluate_every=60)
    losses = [x["loss"] for x in MetricsFile(tmp_path / "metrics.jsonl").read() if "loss" in x]
    assert np.mean(losses[-12:]) < 0.95 * np.mean(losses[:12])


def test_adapter_can_be_read_by_whoever_may_read_its_folder(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    run(checkpoint, data, tmp_path / "run", steps=1)
    (tmp_path / "plain").touch()
    wanted = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "run/memory.safetensors").stat().st_mode == wanted


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


@pytest.mark.parametrize(("kind", "times"), [("text", 8.0), ("needle", 1.0)])
def test_text_weight_strengthens_the_pull_of_plain_text_alone(
    checkpoint: Path, tmp_path: Path, kind: str, times: float
) -> None:
    with ShardWriter(tmp_path / "data", vocab_size=320, tokenizer="none") as writer:
        for split in ("train", "heldout"):
            ids = np.arange(3, 99)
            writer.add(Sequence(ids, ids > 3, kind, split))
    steps = []
    for weight in (1.0, 8.0):
        out = tmp_path / f"{weight}"
        run(checkpoint, tmp_path / "data", out, steps=1, text_weight=weight)
        steps += [x for x in MetricsFile(out / "metrics.jsonl").read() if "loss" in x]
    plain, weighted = steps
    assert weighted["loss"] == plain["loss"]
    assert weighted["gradient_norm"] == pytest.approx(times * plain["gradient_norm"], rel=1e-4)


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


def test_run_that_never_recovers_is_given_up(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "MOST_SKIPPED", 2)
    monkeypatch.setattr(trainer_module, "model_loss", lambda *_: Loss(float("nan"), 1))
    with pytest.raises(TrainingError, match="2 steps in a row"):
        run(checkpoint, data, tmp_path)


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
