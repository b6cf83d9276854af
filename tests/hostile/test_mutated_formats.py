"""Every format from outside, spoiled in hundreds of ways: it is read, or refused by a named error.

The same numbers make the same examples in every run; `make fuzz` goes on where these end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile.fuzz.table import TABLE
from hostile.fuzz.workers import Worker

EXAMPLES = 200
FEWER = {"checkpoint": 60, "gguf": 100, "pretrained": 100, "passages": 100, "document": 60,
         "loading": 100}  # fmt: skip
"""Of formats whose reading takes long."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A child process, so that nothing that an example does can end the tests."""
    worker = Worker()
    yield worker
    worker.close()


@pytest.mark.parametrize("name", TABLE)
def test_spoiled_example_is_read_or_refused_by_name(
    worker: Worker, tmp_path: Path, name: str
) -> None:
    examples = FEWER.get(name, EXAMPLES)
    good, *answers = worker.run(name, tmp_path, 0, examples)
    assert good["kind"] == "read", good

    findings = {f"{a['what']}\n{a['detail']}" for a in answers if a["kind"] == "finding"}
    assert not findings, "\n".join(findings)
    assert len(answers) == examples
    # Were all refused at the first look, nothing behind it would be tested.
    kinds = Counter(answer["kind"] for answer in answers)
    refusals = {answer["what"] for answer in answers if answer["kind"] == "refused"}
    assert len(refusals) > 1, kinds
