"""``allmem eval`` from the command line: tables, files, resuming and refusals."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result
from runtime.fake_ruler import write_fake

from allmem_runtime.cli import allmem
from allmem_runtime.cli.evaluate import evaluate
from allmem_runtime.evaluation.numbers import Mean
from allmem_runtime.evaluation.rows import Row, write_rows
from allmem_runtime.evaluation.tables import Table, plot


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        evaluate, [str(a) for a in arguments], catch_exceptions=True, standalone_mode=False
    )


def rows_of(folder: Path) -> list[str]:
    return [f"allmem={folder}", f"forgets={folder}:reset"]


def test_the_verb_is_listed() -> None:
    assert "eval" in CliRunner().invoke(allmem, ["--help"]).output


def test_needle_prints_a_table_and_keeps_every_result(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "needle.jsonl"
    arguments = [
        "needle", *rows_of(tiny_model_dir), "--lengths", "600,700", "--samples", 2, "--depths", 3,
        "--json", path,
    ]  # fmt: skip
    first = run(*arguments)
    assert first.exit_code == 0, first.exception
    assert "needle: recall at all depths" in first.stdout and "forgets" in first.stdout
    assert "[24/24]" in first.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["begin", *["result"] * 24, "table"]
    results = [line for line in lines if line["kind"] == "result"]
    assert {line["reset"] for line in results} == {False, True}
    assert {line["depth"] for line in results} == {0, 50, 100}
    # Both rows were asked the same.
    prompts = [[r["prompt"] for r in results if r["row"] == row] for row in ("allmem", "forgets")]
    assert sorted(prompts[0]) == sorted(prompts[1])
    assert all(r["tokens"] <= 700 for r in results)
    again = run(*arguments)
    assert again.stdout == first.stdout
    assert "24 results are there already" in again.stderr and "[24/24]" not in again.stderr


def test_perplexity_takes_rows_and_texts_in_any_order(tiny_model_dir: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The river went round the old mill. " * 30)
    done = run(
        "perplexity", text, *rows_of(tiny_model_dir), "--length", 200, "--buckets", "0,50",
        "--samples", 3, "--quiet", "--against", "forgets", "--against", "allmem",
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    assert "0–50" in done.stdout and "50–200" in done.stdout
    assert done.stdout.index("above 'forgets'") < done.stdout.index("above 'allmem'")
    assert done.stderr == ""


def test_a_time_that_is_over_begins_nothing_and_says_how_much_is_done(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "needle.jsonl"
    arguments = ["needle", *rows_of(tiny_model_dir), "--lengths", "600", "--samples", 2,
                 "--depths", 2, "--quiet", "--json", path]  # fmt: skip
    none = run(*arguments, "--minutes", 0.000001)
    assert none.exit_code == 0, none.exception
    assert "all rows have answered 0 of 4 prompts; the same command goes on" in none.stderr
    assert none.stdout.count("–") >= 2, "cells that were not measured"
    done = run(*arguments, "--minutes", 60)
    assert done.stderr == "" and "samples in each cell: 2" in done.stdout


def test_a_folder_of_rows_is_taken_for_its_rows(tiny_model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "on")
    rows = [Row("AllMem", tmp_path / "on"), Row("AllMem, reset", tmp_path / "on", reset=True)]
    write_rows(tmp_path, rows)
    (tmp_path / "text.txt").write_text("The river went round the old mill. " * 30)
    for command, more in (("needle", ["--lengths", 600]), ("perplexity", ["--length", 200])):
        text = [tmp_path / "text.txt"] if command == "perplexity" else []
        done = run(command, tmp_path, *text, *more, "--samples", 1, "--quiet")
        assert done.exit_code == 0, done.exception
        assert "AllMem, reset" in done.stdout


def test_longbench_reads_local_files(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    names = ["hotpotqa", "qasper", "lcc"]
    path.write_text(
        "\n".join(
            json.dumps({"context": "A text.", "input": "Who?", "answers": ["x"], "dataset": name})
            for name in names
        )
    )
    done = run("longbench", *rows_of(tiny_model_dir), path, "--quiet")
    assert done.exit_code == 0, done.exception
    assert all(name in done.stdout for name in [*names, "average"])


def test_ruler_runs_with_a_package_of_its_outline(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(write_fake(tmp_path / "packages")))
    for name in [n for n in sys.modules if n.startswith("long_context_eval")]:
        monkeypatch.delitem(sys.modules, name)
    path = tmp_path / "ruler.jsonl"
    done = run(
        "ruler", *rows_of(tiny_model_dir), "--tasks", "niah_single_1,qa_1", "--lengths", "400",
        "--samples", 2, "--json", path,
    )  # fmt: skip
    for name in [n for n in sys.modules if n.startswith("long_context_eval")]:
        del sys.modules[name]
    assert done.exit_code == 0, done.exception
    assert "average of all tasks" in done.stdout
    result = json.loads(path.read_text().splitlines()[1])
    assert result["benchmark"].startswith("nvidia-long-context-eval")
    assert result["answer_prefix"] == "assistant" and result["chat"] is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["perplexity", "a=b"], "texts are missing"),
        (["perplexity", "text.txt"], "Rows or texts"),
        (["longbench", "a=b"], "files are missing"),
        (["needle", "no row"], "no row"),
        (["needle", "a=b", "--lengths", "x"], "no number of tokens"),
        (["ruler", "a=b", "--tasks", "vt,other"], "other"),
        (["ruler", "a=b", "--tasks", "vt,vt"], "vt"),
        (["needle", "a=b", "--json", "/nowhere/at/all.jsonl"], "no folder"),
        (["needle", "a=/nowhere/at/all"], "nowhere"),
        (["needle", "a=b", "--against", "c"], "'c' is no row"),
        (["needle", "a=b", "--plot", "x.txt"], "no kind of picture"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.exception is not None and says in str(done.exception)


def test_a_plot_without_matplotlib_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name)
    )
    done = run("needle", "a=/nowhere", "--plot", "x.png")
    assert "pip install matplotlib" in str(done.exception)


def test_a_plot_shows_means_with_their_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[object] = []

    class Axis:
        def errorbar(self, x: list[int], y: list[float], *, yerr: list[float], **_: object) -> None:
            drawn.append((x, y, yerr))

        def __getattr__(self, name: str) -> object:
            return lambda *_, **__: None

    saved: list[Path] = []

    class Figure:
        axes = (Axis(),)

        def __init__(self, size: tuple[float, float], layout: str) -> None:
            pass

        def subplots(self, down: int, across: int) -> None:
            assert (down, across) == (1, 1)

        def savefig(self, path: Path, dpi: int) -> None:
            saved.append(path)

    module = ModuleType("matplotlib.figure")
    module.Figure = Figure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", module)
    cells = {("a", "2k"): Mean(50.0, 5.0, 4), ("a", "4k"): Mean(40.0, None, 1)}
    plot([Table("t", ["a"], ["2k", "4k", "8k"], cells=cells)], tmp_path / "x.png")
    assert drawn == [([0, 1], [50.0, 40.0], [5.0, 0.0])] and saved == [tmp_path / "x.png"]
