"""Fixtures of the command tests: a command in this process, and a document to read."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from commands import MAINS, TEXT, Command, Result

from allmem_runtime import cli


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``allmem`` or ``allmem-run`` in this process, with ``stdin`` as standard input."""

    def call(name: str, *arguments: object, stdin: bytes | None = None) -> Result:
        standard_input = io.BytesIO(stdin or b"")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(standard_input, "utf-8"))
        capfdbinary.readouterr()
        with (
            os.fdopen(os.dup(1), "w", encoding="utf-8") as out,
            os.fdopen(os.dup(2), "w", encoding="utf-8") as err,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as exit_:
                getattr(cli, MAINS[name])([str(a) for a in arguments])
        captured = capfdbinary.readouterr()
        return Result(int(exit_.value.code or 0), captured.out.decode(), captured.err.decode())

    return call


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """A text of some 2,000 tokens in a folder with a difficult name."""
    folder = tmp_path / "with space 👩‍🚀"
    folder.mkdir()
    path = folder / "Größe.txt"
    path.write_text(TEXT * 40, encoding="utf-8")
    return path
