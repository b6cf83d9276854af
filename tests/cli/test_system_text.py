"""A model whose template knows no system role takes --system all the same, and says where."""

from __future__ import annotations

from pathlib import Path

import stand_in
from commands import Command

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
)
ASKED = ("--prompt", "Who?", "--max-tokens", 3, "--device", "cpu", "--operators", "portable")


def test_a_system_text_without_a_place_of_its_own_is_told_of_and_read(
    tmp_path: Path, command: Command, document: Path
) -> None:
    model = stand_in.write(tmp_path / "model", template=NO_SYSTEM)
    told = command("allmem-run", model, document, *ASKED, "--json", "--system", "Be brief.")
    plain = command("allmem-run", model, document, *ASKED, "--json")
    assert told.code == plain.code == 0
    assert any("no place for a system text" in event["text"] for event in told.of("notice"))
    assert not any("system" in event["text"] for event in plain.of("notice"))
    assert told.of("read")[0]["position"] > plain.of("read")[0]["position"]
