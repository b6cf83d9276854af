"""The tests that docs/promises.md names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "promises.md"
ROW = re.compile(r"^\|.*\]\(\.\./(?P<file>tests/\S+\.py)\) \| (?P<tests>.+) \|$", re.MULTILINE)


def test_every_promise_names_tests_that_are_there() -> None:
    rows = [(row["file"], row["tests"]) for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))]
    assert len(rows) > 30
    for file, tests in rows:
        names = re.findall(r"`(test_\w+)`", tests)
        assert names, file
        source = (ROOT / file).read_text(encoding="utf-8")
        assert [name for name in names if f"def {name}(" not in source] == [], file
