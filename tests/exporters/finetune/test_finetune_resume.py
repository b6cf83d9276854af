"""A training run that is cut off anywhere ends as if it had not been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from exporters.finetune.training import SETTINGS, figures, run

from allmem_exporters.finetune import run as run_module
from allmem_exporters.finetune import trainer as trainer_module
from allmem_exporters.finetune.losses import Loss
from allmem_exporters.finetune.resume import RunFile
from allmem_exporters.finetune.run import finetune
from allmem_exporters.finetune.settings import from_dict
from allmem_exporters.finetune.trainer import Step


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
