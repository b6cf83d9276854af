"""A model with a template, a tokenizer or settings of a stranger: one line, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Command
from hostile.fuzz.format import Files, files_in, write_files
from hostile.fuzz.formats._toy import sealed, write_toy
from runtime.texts_without_end import TEMPLATES, TOKENIZERS

from allmem_runtime import spec
from allmem_runtime.files.user_cache import VARIABLE
from allmem_runtime.text import limits

Change = Callable[[Files], Files]
OPTIONS = ("--device", "cpu", "--operators", "portable", "--max-tokens", 2, "--prompt", "hi")


def _template(text: str) -> Change:
    return lambda files: {spec.CHAT_TEMPLATE_FILE: text.encode()}


def _tokenizer(part: dict[str, object]) -> Change:
    def change(files: Files) -> Files:
        data = {**json.loads(files[spec.TOKENIZER_FILE]), **part}
        return {spec.TOKENIZER_FILE: json.dumps(data).encode()}

    return change


def _generation(text: str) -> Change:
    return lambda files: {spec.GENERATION_FILE: text.encode()}


CHANGES: dict[str, Change] = {
    **{name: _template(text) for name, text in TEMPLATES.items()},
    **{name: _tokenizer(part) for name, part in TOKENIZERS.items()},
    "a template that is none": _template("{% for m in messages %}"),
    "a template without the messages": _template("hello"),
    "a tokenizer that is none": lambda files: {spec.TOKENIZER_FILE: b"{}"},
    "a temperature beyond all floats": _generation(f'{{"temperature": 1{"0" * 400}}}'),
    "settings nested without end": _generation("[" * 100_000),
}


@pytest.fixture(autouse=True)
def little_time_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For trials, and a cache in which nothing was tried."""
    monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 1)
    monkeypatch.setattr(limits, "BASE_SECONDS", 1)
    monkeypatch.setattr(limits, "BASE_MEMORY", 1 << 29)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


@pytest.mark.parametrize("name", CHANGES)
def test_what_takes_too_much_is_one_line_and_nothing_is_lost(
    command: Command, document: Path, tmp_path: Path, name: str
) -> None:
    model, session = tmp_path / "model", tmp_path / "s.allmem"
    write_toy(model)
    run = ("allmem-run", model, document, "--session", session, *OPTIONS)
    assert command(*run).code == 0
    before = files_in(tmp_path)
    good = files_in(model)
    changed = CHANGES[name](good)
    write_files(model, sealed(good, changed))
    spoiled = files_in(tmp_path)

    refused = command(*run)

    assert refused.code == 1 and refused.out == ""
    (line,) = refused.err.splitlines()
    assert line.startswith("allmem-run: error: ") and len(line) < 600
    assert all(file in line.replace("chat template", spec.CHAT_TEMPLATE_FILE) for file in changed)
    assert files_in(tmp_path) == spoiled

    write_files(model, good)
    assert files_in(tmp_path) == before
    assert command(*run).code == 0
