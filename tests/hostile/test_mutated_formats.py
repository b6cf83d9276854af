"""Every format from outside, spoiled in hundreds of ways: it is read, or refused by a named error.

The same numbers make the same examples in every run; `make fuzz` goes on where these end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hostile.fuzz.table import TABLE
from hostile.fuzz.trials import Trials
from hostile.fuzz.workers import Worker
from runtime.tokenizers_for_tests import byte_level_json

from allmem_runtime.text import trial_process
from allmem_runtime.text.limits import Limits

EXAMPLES = 200
FEWER = {"checkpoint": 60, "gguf": 100, "pretrained": 100, "passages": 100, "document": 60,
         "loading": 100, "exported": 60, "families": 40, "decoders": 60, "local": 60}  # fmt: skip
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


@pytest.mark.parametrize("kind", ["good", "no tokenizer", "endless template", "large template"])
def test_trials_in_forks_say_what_those_in_processes_say(kind: str) -> None:
    tokenizer = "{}" if kind == "no tokenizer" else byte_level_json()
    doubling = (
        "{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}"
    )
    endless = "{% set n = namespace(x=['x'], y=['x']) %}" + doubling + "{{ n.x == n.y }}"
    large = "{% set a = ['x' * 999999] %}" + "{% set a = a + a %}" * 24 + "{{ a | length }}"
    task = {
        "tokenizer": tokenizer,
        "template": {"endless template": endless, "large template": large}.get(kind),
        "begin": [],
        "end": [],
        "limits": asdict(replace(Limits.of(1000), template_seconds=1)),
    }
    data = json.dumps(task).encode()
    wanted, code = trial_process._told(data, 60)
    trials = Trials()
    found, fork_code = trials.told(data, 60)
    trials.close()
    assert (found, fork_code) == (wanted, code)
    assert (code == 0) == (kind != "endless template")
