"""The user's cache folder and what is known of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from allmem_runtime import machine
from allmem_runtime.files import user_cache

CPUINFO = (
    "processor : 0\nmodel name : Quick 9000\nflags : avx2 fma\n\nprocessor : 1\nmodel name : B\n"
)


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(user_cache.VARIABLE, str(tmp_path / "here"))
    assert user_cache.cache_folder() == tmp_path / "here"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="other systems have other customs")
@pytest.mark.parametrize("value", ["", "relative/path"], ids=["unset", "relative"])
def test_a_cache_home_that_cannot_be_meant_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.delenv(user_cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache.cache_folder() == tmp_path / ".cache" / "allmem"


def test_facts_of_the_cpu_are_those_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    assert machine.cpu_facts(path)["model name"] == "Quick 9000"
    assert machine.cpu_facts(tmp_path / "missing") == {}


def test_two_threads_of_one_core_count_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    for cpu, siblings in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    assert machine.cores(tmp_path) == 2
    assert machine.cores(tmp_path / "nothing") == 4


def test_this_machine_is_the_same_every_time() -> None:
    assert machine.machine().digest == machine.machine().digest
    assert machine.machine().cores >= 1
