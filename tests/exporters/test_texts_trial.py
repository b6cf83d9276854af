"""A chat template is tried in conversations of several shapes before any work is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from allmem_exporters.errors import ConversionError, ExportError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.onnx.export import export
from allmem_exporters.texts_trial import try_texts

TURNS = "{% for m in messages %}<t>{{ m.content }}</t>{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS
)
NEVER = "{{ raise_exception('Ask somebody else') }}"
LATER = "{% if messages | length > 1 %}{{ raise_exception('once') }}{% endif %}" + TURNS


def checkpoint(tiny: Path, folder: Path, template: str) -> Path:
    """The texts of a tiny checkpoint with another chat template."""
    made = Path(shutil.copytree(tiny, folder / "checkpoint"))
    (made / "chat_template.jinja").write_text(template, encoding="utf-8")
    return made


@pytest.mark.parametrize("template", [NO_SYSTEM, LATER], ids=["no system", "one question"])
def test_a_template_that_takes_some_conversations_is_good(
    template: str, tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    made = checkpoint(tiny_checkpoint_dir, tmp_path, template)
    try_texts(made, AllMemConfig.from_pretrained(made), "mine")


@pytest.mark.parametrize("error", [ExportError, ConversionError])
def test_a_template_that_takes_none_is_refused_in_its_own_words(
    error: type[ExportError], tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    made = checkpoint(tiny_checkpoint_dir, tmp_path, NEVER)
    with pytest.raises(error, match=r"mine: .*Ask somebody else") as caught:
        try_texts(made, AllMemConfig.from_pretrained(made), "mine", error)
    assert "another chat_template.jinja" in caught.value.hint


def test_an_export_says_so_before_any_work(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    made = checkpoint(tiny_checkpoint_dir, tmp_path, NEVER)
    lines: list[str] = []
    with pytest.raises(ExportError, match="Ask somebody else"):
        export(made, tmp_path / "model", report=lines.append)
    assert "tracing" not in lines
    assert not (tmp_path / "model").exists()
