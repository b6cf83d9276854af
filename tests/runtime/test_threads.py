"""A step takes the cores that the process has: affinity, quota, and what the user says."""

from __future__ import annotations

from pathlib import Path

import pytest

from allmem_runtime import UsageError, load
from allmem_runtime.engine import threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six cores, no quota, nothing said."""
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 6)
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)


def test_a_step_takes_all_cores_of_the_process(machine: None) -> None:
    assert threads.cpu_threads(None) == 6


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.5, 1), (2.0, 2), (64.0, 6)])
def test_a_quota_is_not_exceeded(
    machine: None, monkeypatch: pytest.MonkeyPatch, quota: float, expected: int
) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert threads.cpu_threads(None) == expected


def test_the_variable_comes_before_the_machine_and_the_option_before_both(
    machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(threads.VARIABLE, "3")
    assert threads.cpu_threads(None) == 3
    assert threads.cpu_threads(4) == 4


@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5", "1025", "9" * 50, "٣"])
def test_a_variable_that_cannot_be_meant_is_refused_and_named(
    machine: None, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(threads.VARIABLE, value)
    with pytest.raises(UsageError, match=threads.VARIABLE):
        threads.cpu_threads(None)


def test_the_variable_reaches_the_model(
    machine: None, monkeypatch: pytest.MonkeyPatch, toy_dir: Path
) -> None:
    monkeypatch.setenv(threads.VARIABLE, "1")
    assert load(toy_dir, device="cpu", operators="portable").engine.threads == 1
    assert load(toy_dir, device="cpu", operators="portable", threads=2).engine.threads == 2


def groups(folder: Path, own: str, files: dict[str, str]) -> float | None:
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return threads.cpu_quota(folder / "own", folder / "groups")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/host/path\n", {"cpu.max": "400000 100000\n"}, 4.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "strange\n"}, None),
        ("0::/\n", {}, None),
        (
            "4:cpu,cpuacct:/a\n3:memory:/a\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
    ],
    ids=[
        "own group",
        "group around it",
        "the smallest counts",
        "path of the host",
        "no limit",
        "unreadable",
        "no groups",
        "version 1",
        "version 1 without limit",
    ],
)
def test_quota_of_the_control_groups(
    tmp_path: Path, own: str, files: dict[str, str], expected: float | None
) -> None:
    assert groups(tmp_path, own, files) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert threads.cpu_quota(tmp_path / "missing", tmp_path) is None
