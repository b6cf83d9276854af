"""The benchmark of a GPU, rehearsed on the CPU: all of its code, tiny sizes, no speeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import kernels_attention
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.bench import Bench, Task, work_off
from benchmarks.gpu.report import REHEARSAL, Report
from benchmarks.gpu.timing import Contender, Race, Stopwatch


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_rehearsal_measures_everything_and_calls_it_a_rehearsal(
    shim_kernels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    assert main(["--rehearse", str(shim_kernels), "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["rehearsal"] is True
    assert REHEARSAL in capsys.readouterr().out
    rows = document["rows"]
    assert [row for row in rows if "not run" in row] == []
    assert {row["section"] for row in rows} == {"machine", "attention", "memory", "models"}
    ways = {row["way"] for row in rows if row["section"] == "attention" and "way" in row}
    assert {"ours", "SDPA, mask", "FlexAttention", "FlashAttention, full causal"} <= ways
    agreements = [row["relative_rms"] for row in rows if "relative_rms" in row]
    # Float16 outputs, each side rounded.
    assert len(agreements) == 2 and max(agreements) < 2e-3


def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    assert main(["--only", "attention"]) == 1
    assert "no CUDA device" in capsys.readouterr().err


def bench(report: Report) -> Bench:
    device = torch.device("cpu")
    return Bench(device, Stopwatch(device, 0.0, (2, 2)), report, None, "no library", rehearsal=True)


def test_what_cannot_be_measured_is_reported_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    report = Report({}, path=file)

    def fails(_bench: Bench) -> None:
        raise RuntimeError("out of memory\nand a long trace")

    def races(bench: Bench) -> None:
        def missing() -> object:
            raise ImportError("no such peer")

        contenders = [Contender("ours", lambda: lambda: None), Contender("peer", missing)]
        bench.report.race("s", "race", bench.watch.race(contenders), "ours")

    tasks = [
        Task("s", "fails", 1, fails, kernels=False),
        Task("s", "needs kernels", 2, fails),
        Task("s", "races", 3, races, kernels=False),
    ]
    work_off(bench(report), tasks)
    rows = {row["name"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["fails"]["not run"] == "RuntimeError: out of memory"
    assert rows["needs kernels"]["not run"] == "no library"
    assert rows["race, peer"]["not run"] == "ImportError: no such peer"
    assert "milliseconds" in rows["race"]


def test_what_there_was_no_time_for_is_reported_and_order_is_kept(tmp_path: Path) -> None:
    report = Report({}, minutes=1000)
    done: list[str] = []

    def last(_bench: Bench) -> None:
        done.append("first")
        report._minutes = 0

    tasks = [
        Task("s", "later", 5, lambda bench: done.append("later"), kernels=False),
        Task("s", "first", 1, last, kernels=False),
    ]
    work_off(bench(report), tasks)
    assert done == ["first"]
    assert report.rows[0]["name"] == "later" and report.rows[0]["not run"] == "the time was up"


def test_results_so_far_are_in_the_file_after_every_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    report = Report({"device": "none"}, path=file)
    for count in range(3):
        assert len(json.loads(file.read_text())["rows"]) == count
        report.add("s", f"row {count}", value=1.0)


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was ten times as slow in the last round; the ratio is not moved by it.
    race = Race(seconds={"ours": [1.0, 1.0, 10.0], "peer": [2.0, 2.0, 20.0]})
    assert race.ratio("peer", "ours") == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("tokens", [1, 5, 20, 23, 24, 100])
def test_visible_pairs_are_those_of_the_mask(tokens: int) -> None:
    sizes = kernels_attention.Sizes(window=20, sinks=3)
    at = torch.arange(tokens)
    mask = kernels_attention.visible(sizes, at[:, None], at[None])
    assert sizes.pairs(tokens) == int(mask.sum())
