"""allmem prepare: what it writes, what it tells, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command

from allmem_runtime.bench import start
from allmem_runtime.engine import preparing
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import DeviceError
from allmem_runtime.files.user_cache import VARIABLE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def test_starts_with_and_without_are_measured_and_told(
    command: Command, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = command("allmem", "prepare", model)

    assert result.code == 0, result.err
    assert f"Prepared in {model / 'prepared'}" in result.out
    lines = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    for how in ("exported", "prepared"):
        assert " s (" in lines[how] and lines[how].count("MiB") == 2
    assert command("allmem", "info", model).out.count(str(model / "prepared")) == 1
    command("allmem", "doctor", model)  # whose other operators need no weights of their own
    assert "prepared weights" not in caplog.text


def test_json_holds_every_start(command: Command, model: Path) -> None:
    result = command("allmem", "prepare", model, "--json", "--operators", "portable")

    told = json.loads(result.out)
    folder = Path(told["folder"])
    assert told["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    for how in ("exported", "prepared"):
        seconds = told[how]["seconds_to_first_token"]
        assert len(seconds) == 3 and seconds == sorted(seconds)
        assert sum(told[how]["parts"].values()) == pytest.approx(seconds[0], abs=0.001)
        assert told[how]["resident_bytes"] >= (told[how]["private_bytes"] or 0)
        assert told[how]["state_bytes"] > 0


def test_weights_that_say_something_else_are_deleted(
    command: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object) -> dict[str, start.Starts]:
        starts = {how: start.Starts(how, [1.0], [1.0]) for how in ("exported", "prepared")}
        starts["prepared"].folder = "somewhere"
        starts["prepared"].logits = np.ones((1, 2), np.float32)
        starts["exported"].logits = np.zeros((1, 2), np.float32)
        return starts

    monkeypatch.setattr(start, "measure_starts", measure)
    result = command("allmem", "prepare", model)

    assert result.code == 1
    assert "other logits" in result.err
    assert not [path for path in (model / "prepared").iterdir() if path.is_dir()]


def test_remove_deletes_and_says_so(command: Command, model: Path) -> None:
    command("allmem", "prepare", model, "--no-measure")
    folders = [path for path in (model / "prepared").iterdir() if path.is_dir()]

    result = command("allmem", "prepare", model, "--remove")
    assert result.out == f"Deleted {folders[0]}.\n"
    assert not (model / "prepared").exists()
    again = command("allmem", "prepare", model, "--remove")
    assert (again.code, again.out) == (0, "Nothing was prepared of this model.\n")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--operators", "missing.so"], 1), (["--threads", "0"], 2)]
)
def test_options_that_cannot_be_meant_are_refused(
    command: Command, model: Path, arguments: list[str], code: int
) -> None:
    result = command("allmem", "prepare", model, "--operators", "portable", *arguments)
    assert (result.code, result.out) == (code, "")
    assert not list((model / "prepared").glob("*/prepared.json"))


def test_a_start_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"A start of .* failed: .*nothing"):
        options = EngineOptions(operators="portable", threads=1)
        start.measure_starts(tmp_path / "nothing", options, ("exported",), 1)


def test_run_says_when_prepared_weights_are_ignored(command: Command, model: Path) -> None:
    command("allmem", "prepare", model, "--no-measure", "--operators", "portable")
    (model / "prepared").chmod(0o755)
    for data in (model / "prepared").glob("*/model.onnx.data"):
        data.write_bytes(data.read_bytes()[:-1])

    options = ["--operators", "portable", "--prompt", "Who?", "--max-tokens", 2, "--device", "cpu"]
    result = command("allmem-run", model, *options)

    assert result.code == 0
    assert "is damaged" in result.err and "allmem prepare" in result.err


def test_run_says_in_its_first_event_whether_prepared_weights_are_used(
    command: Command, model: Path
) -> None:
    options = ["--operators", "portable", "--prompt", "Who?", "--max-tokens", 2, "--device", "cpu"]
    said = []
    for _ in range(2):
        events = command("allmem-run", model, *options, "--json", "--threads", 1).of("start")
        said.append((events[0]["prepared"], events[0]["threads"]))
        command("allmem", "prepare", model, "--no-measure", "--operators", "portable")
    assert said == [(False, 1), (True, 1)]


def test_nothing_of_a_model_is_changed(command: Command, model: Path) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    command("allmem", "prepare", model, "--no-measure")
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
    assert preparing.disk_bytes(next((model / "prepared").glob("*/prepared.json")).parent) > 0
