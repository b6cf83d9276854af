"""One long text read in one go: the growth of the fast weights and the losses along it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import tiny_config, tiny_model, write_tiny_checkpoint

from allmem_exporters.finetune.recall import observe
from allmem_exporters.onnx.export import export
from allmem_runtime import load
from allmem_runtime.cli.evaluate import evaluate
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.evaluation.blank_memory import EvaluationSession, initial_weights
from allmem_runtime.evaluation.drift import Drift, growth, row_norms, stretches
from allmem_runtime.evaluation.loading import Models
from allmem_runtime.evaluation.perplexity import losses
from allmem_runtime.evaluation.results import Results
from allmem_runtime.evaluation.rows import grouped, parse_rows

CPU = EngineOptions(device="cpu", threads=1)

IDS = tuple(int(i) for i in np.random.default_rng(7).integers(3, 300, 161))
# Strong writes, so that the rows grow within a few chunks.
LOUD = {"lr_init": 0.05, "theta_rel": 1.0}


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint", tiny_config(**LOUD))
    export(checkpoint, folder / "model", check=False)
    return folder / "model"


def test_a_row_that_doubles_is_seen_wherever_it_lies() -> None:
    first = np.random.default_rng(0).normal(size=(1, 2, 3, 5, 4)).astype(np.float32)
    assert row_norms(first).shape == (2 * (5 + 5 + 4),)
    assert growth({"a": first}, {"a": first}) == [1.0]
    for part, place in ((0, np.s_[1, 2, :]), (1, np.s_[0, 4, :]), (2, np.s_[1, :, 3])):
        now = first.copy()
        now[0, :, part][place] *= 2  # a row of down lies across, for it is kept transposed
        assert growth({"a": now}, {"a": first})[0] == pytest.approx(2.0)


def test_growth_is_that_which_training_reports(loud: Path) -> None:
    model = load(loud, device="cpu", threads=1)
    session = EvaluationSession(model, undo=False)
    found = list(stretches(session, IDS, 16, initial_weights(model)))
    network = tiny_model(tiny_config(**LOUD, cache_dtype="float32"))
    seen: list[torch.Tensor] = []
    memory = network.model.layers[0].allmem
    memory.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.as_tensor(IDS[:-1])[None])
    expected = observe(memory, torch.cat(seen, dim=1), 16).growth
    assert expected > 1.001
    # The first layer's input is the same to rounding; float32 sums in another order.
    assert max(part["growth"][0] for part in found) == pytest.approx(expected, rel=1e-3)


def test_stretches_read_on_as_one_text(loud: Path) -> None:
    model = load(loud, device="cpu", threads=1)
    initial = initial_weights(model)
    found = list(stretches(EvaluationSession(model, undo=False), IDS, 50, initial))
    assert [(part["start"], part["end"]) for part in found] == [
        (0, 50), (50, 100), (100, 150), (150, 160),
    ]  # fmt: skip
    whole = losses(EvaluationSession(model, undo=False), (), IDS, lambda at: None)
    for part in found:
        # Pieces are cut elsewhere: rounding of float32 and of the 16-bit keys and values.
        assert part["nats"] == pytest.approx(whole[part["start"] : part["end"]].mean(), rel=1e-3)


def test_the_command_tells_drift_and_keeps_it(loud: Path, tmp_path: Path) -> None:
    text, path = tmp_path / "text.txt", tmp_path / "drift.jsonl"
    text.write_text("The river went round the old mill. " * 40)
    arguments = ["drift", f"a={loud}", f"b={loud}:reset", str(text), "--length", "300", "--step",
                 "100", "--json", str(path)]  # fmt: skip
    done = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "perplexity 100–200" in done.stdout and "perplexity 200–300" in done.stdout
    assert "300 of 300 tokens" in done.stderr
    again = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert again.stdout == done.stdout and "of 300 tokens" not in again.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["begin", *["result"] * 3, "table", "table"]
    table = lines[-1]
    assert len(lines[1]["growth"]) == 2
    values = table["tables"][2]["rows"]["a"]
    ratio = values["perplexity 200–300"]["mean"] / values["perplexity 100–200"]["mean"]
    assert values["change, %"]["mean"] == pytest.approx(100 * (ratio - 1))


@pytest.mark.parametrize("lost", [False, True], ids=["its session is there", "it was lost"])
def test_a_reading_that_was_cut_off_goes_on_to_the_same_end(
    loud: Path, tmp_path: Path, lost: bool
) -> None:
    groups, path, said = grouped(parse_rows([f"a={loud}"])), tmp_path / "r.jsonl", list[str]()
    models = Models(CPU)
    whole = Drift(models, Results(None), said.append).run(groups, IDS, 40)["a"]
    cut = Drift(models, Results(path), said.append, lambda: len(said) == 6, path)
    assert len(cut.run(groups, IDS, 40)["a"]) == 2
    (session,) = tmp_path.glob("*.allmem")
    if lost:
        session.unlink()
    said.clear()
    again = Drift(models, Results(path), said.append, path=path).run(groups, IDS, 40)["a"]
    assert len(said) == (4 if lost else 2)
    assert [(r["start"], r["nats"], r["growth"]) for r in again] == [
        (r["start"], r["nats"], r["growth"]) for r in whole
    ]
    assert not list(tmp_path.glob("*.allmem")), "nothing is left of a finished row"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--length", "9k", "--step", "1k"], "tokens; 9,217 are wanted"),
        (["--length", "100", "--step", "60"], "no two stretches"),
    ],
    ids=["text too short", "steps too long"],
)
def test_what_cannot_be_told_is_refused(
    loud: Path, tmp_path: Path, more: list[str], says: str
) -> None:
    (tmp_path / "text.txt").write_text("The river. " * 99)
    done = CliRunner().invoke(evaluate, ["drift", f"a={loud}", str(tmp_path / "text.txt"), *more])
    assert says in str(done.exception)
