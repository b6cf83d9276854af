"""The benchmark command: what it measures, keeps, refuses, and leaves on Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
from commands import TEXT, Command, process

from allmem_runtime import load
from allmem_runtime.bench.process_memory import process_memory
from allmem_runtime.bench.statistics import Spread
from allmem_runtime.bench.texts import Text
from allmem_runtime.files.user_cache import VARIABLE

QUICK = ("--device", "cpu", "--operators", "portable", "--threads", 1, "--repeats", 2)
SMALL = (*QUICK, "--depths", "0,30,50", "--prompt-sizes", "3,20", "--tokens", 2)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_every_depth_has_its_row_and_its_figures(
    command: Command, tiny_model_dir: Path, text: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bench.json"
    result = command("allmem", "bench", tiny_model_dir, *SMALL, "--text", text, "--json", path)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["0", "30", "50"]
    assert "at 50 over 30 tokens read" in lines[4]
    assert "is read repeatedly" in result.err
    found = json.loads(path.read_text())
    assert [row["tokens_read"] for row in found["rows"]] == [0, 30, 50]
    assert [row["reading"]["tokens"] for row in found["rows"]] == [0, 30, 20]
    for row in found["rows"]:
        assert [prompt["tokens"] for prompt in row["prompts"]] == [3, 20]
        assert row["state_bytes"] == load(tiny_model_dir).state_bytes
        assert row["resident_bytes"] > row["state_bytes"]
        figures = [row["decode_tokens_per_second"]]
        figures += [prompt["tokens_per_second"] for prompt in row["prompts"]]
        figures += [prompt["first_token_seconds"] for prompt in row["prompts"]]
        for figure in figures:
            assert 0 < figure["lowest"] <= figure["median"] <= figure["highest"]
            assert figure["count"] == 2
    assert found["far_over_near"]["near"] == 30
    assert found["interrupted"] is False


def test_a_kept_reading_is_not_read_again(
    command: Command, tiny_model_dir: Path, text: Path, tmp_path: Path
) -> None:
    keep, path = tmp_path / "readings", tmp_path / "bench.json"
    arguments = (tiny_model_dir, *SMALL, "--text", text, "--keep", keep, "--json", path)
    assert command("allmem", "bench", *arguments).code == 0
    assert len(list(keep.iterdir())) == 2
    result = command("allmem", "bench", *arguments)
    assert "kept" in result.out
    readings = [row["reading"] for row in json.loads(path.read_text())["rows"]]
    assert [reading["kept"] for reading in readings] == [False, True, True]
    assert [reading["tokens"] for reading in readings] == [0, 0, 0]


def test_a_kept_reading_of_another_model_is_refused(
    command: Command, tiny_model_dir: Path, other_model_dir: Path, text: Path, tmp_path: Path
) -> None:
    keeps = [tmp_path / "one", tmp_path / "other"]
    for model, keep in zip((tiny_model_dir, other_model_dir), keeps, strict=True):
        assert command("allmem", "bench", model, *SMALL, "--text", text, "--keep", keep).code == 0
    for mine, theirs in zip(*(sorted(keep.iterdir()) for keep in keeps), strict=True):
        shutil.copy(theirs, mine)
    result = command("allmem", "bench", tiny_model_dir, *SMALL, "--text", text, "--keep", keeps[0])
    assert result.code == 1
    assert "model" in result.err


def test_a_kept_reading_of_another_depth_is_refused(
    command: Command, tiny_model_dir: Path, text: Path, tmp_path: Path
) -> None:
    keep = tmp_path / "readings"
    arguments = (tiny_model_dir, *SMALL, "--text", text, "--keep", keep)
    assert command("allmem", "bench", *arguments).code == 0
    deep = next(path for path in keep.iterdir() if path.stem.endswith("-50"))
    shutil.copy(deep, deep.with_name(deep.name.replace("-50.", "-30.")))
    result = command("allmem", "bench", *arguments)
    assert result.code == 1
    assert "has read 50 tokens, not 30" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--depths", "2x"), "'2x'"),
        (("--depths", ""), "--depths"),
        (("--depths", "-1"), "--depths"),
        (("--prompt-sizes", "0"), "--prompt-sizes"),
        (("--repeats", "0"), "--repeats"),
        (("--json", "nowhere/b.json"), "nowhere"),
        (("--text", "missing.txt"), "missing.txt"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_cannot_be_meant_are_refused(
    command: Command, tiny_model_dir: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = command("allmem", "bench", tiny_model_dir, *QUICK, *arguments)
    assert result.code in (1, 2)
    assert words in result.err
    assert not result.out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for others")
def test_ctrl_c_keeps_what_was_measured(tiny_model_dir: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    # The second depth takes hours.
    running = process(
        "allmem", "bench", tiny_model_dir, *QUICK, "--depths", "0,1000M", "--prompt-sizes", 1,
        "--text", text, "--json", path,
    )  # fmt: skip
    assert running.stdout is not None
    running.stdout.readline()
    assert running.stdout.readline().split()[0] == b"0"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    found = json.loads(path.read_text())
    assert found["interrupted"] is True
    assert [row["tokens_read"] for row in found["rows"]] == [0]


def test_a_picture_is_drawn_where_that_is_possible(
    command: Command, tiny_model_dir: Path, text: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "bench.png"
    result = command("allmem", "bench", tiny_model_dir, *SMALL, "--text", text, "--plot", path)
    assert result.code == 0, result.err
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_text_that_ends_begins_again() -> None:
    text = Text("name", [1, 2, 3])
    assert text.part(2, 9) == [3, 1, 2, 3, 1, 2, 3]
    assert text.part(4, 4) == []
    assert text.digest != Text("name", [1, 2, 4]).digest


def test_a_spread_keeps_its_order_when_it_is_turned_round() -> None:
    spread = Spread.of([4.0, 1.0, 2.0]).map(lambda seconds: 8 / seconds)
    assert (spread.lowest, spread.median, spread.highest) == (2.0, 4.0, 8.0)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="only Linux tells private memory")
def test_memory_of_this_process_is_told() -> None:
    memory = process_memory()
    assert memory.private is not None
    assert 0 < memory.private <= memory.resident
