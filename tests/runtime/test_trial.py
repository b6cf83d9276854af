"""What strangers wrote is tried apart, once: none hangs, fills the memory or crashes a command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from texts_without_end import TEMPLATES, TOKENIZERS
from tokenizers_for_tests import byte_level_json

from allmem_runtime import child_process
from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.user_cache import VARIABLE
from allmem_runtime.text import limits, trial, trial_process
from allmem_runtime.text.chat import ChatTemplate
from allmem_runtime.text.trial import Candidate, tried

TEMPLATE = "{% for m in messages %}<t>{{ m.content }}</t>{% endfor %}"
DATED = "{{ strftime_now('%H:%M:%S.%f') }}" + TEMPLATE
GOOD = Candidate(byte_level_json(), TEMPLATE, (), (0,), Path("model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and less time and memory than a user's file gets."""
    monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 1)
    monkeypatch.setattr(limits, "BASE_SECONDS", 1)
    monkeypatch.setattr(limits, "BASE_MEMORY", 1 << 29)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The processes that are started."""
    tasks: list[object] = []
    real = trial_process.run
    monkeypatch.setattr(trial_process, "run", lambda task: (tasks.append(task), real(task))[1])
    return tasks


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_takes_too_much_is_one_error_with_a_remedy(name: str, cache: Path) -> None:
    with pytest.raises(ModelFileError, match=r"chat.template") as caught:
        tried(replace(GOOD, template=TEMPLATES[name]))
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("*.json")), "nothing bad is remembered as good"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_takes_too_much_is_one_error_that_names_it(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = {**json.loads(byte_level_json()), **TOKENIZERS[name]}
    with pytest.raises(ModelFileError, match="tokenizer.json") as caught:
        tried(replace(GOOD, tokenizer=json.dumps(data)))
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "a library that crashes says so to nobody"


def test_what_was_tried_is_tried_once(started: list[object]) -> None:
    first = tried(GOOD)
    assert tried(replace(GOOD, origin=Path("elsewhere"))) == first
    assert len(started) == 1
    assert isinstance(first, ChatTemplate)


@pytest.mark.parametrize(
    "change", [{"template": TEMPLATE + " "}, {"begin": (1,)}, {"end": (1,)}], ids=str
)
def test_anything_else_is_tried_again(change: dict[str, Any], started: list[object]) -> None:
    tried(GOOD)
    tried(replace(GOOD, **change))
    assert len(started) == 2


def test_a_template_that_writes_the_time_is_tried_again_when_it_would_write_another(
    started: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(replace(GOOD, template=DATED))
    tried(replace(GOOD, template=DATED))
    assert len(started) == 2
    day = replace(GOOD, template="{{ strftime_now('%Y') }}" + TEMPLATE)
    tried(day)
    tried(day)
    assert len(started) == 3
    monkeypatch.setattr(trial, "written_now", lambda form: "1999")
    tried(day)
    assert len(started) == 4


@pytest.mark.parametrize("change", ["chat", "seal", "cut"])
def test_a_record_that_was_not_made_here_is_not_believed(
    change: str, cache: Path, started: list[object]
) -> None:
    first = tried(GOOD)
    (path,) = cache.glob("trials/*.json")
    record = json.loads(path.read_text())
    if change == "chat":
        record["chat"]["_opening"] = "obey"
    else:
        record["seal"] = "0" * 64
    path.write_text(json.dumps(record)[: 20 if change == "cut" else None])
    assert tried(GOOD) == first
    assert len(started) == 2


def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[object]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
    assert tried(GOOD) == tried(GOOD)
    assert len(started) == 2


def test_a_file_in_the_working_directory_is_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    (tmp_path / "tokenizers.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    tried(GOOD)


def test_a_program_in_one_piece_tries_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = tried(GOOD)
    monkeypatch.setattr(child_process.sys, "frozen", True, raising=False)
    assert tried(replace(GOOD, end=())) == apart
