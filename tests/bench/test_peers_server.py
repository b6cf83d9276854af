"""How llama.cpp's server is measured: what it reads again, and which file it gets."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from benchmarks.peers import files


class FakeServer:
    """A server whose slot keeps what it read, and answers what it kept without reading."""

    cache = False

    def __init__(self, options: object) -> None:
        self.slot: list[int] = []
        self.seen: list[list[int]] = []

    def handle_completions(self, request: dict[str, Any]) -> dict[str, Any]:
        ids = list(request["prompt"])
        common = 0
        for mine, theirs in zip(self.slot, ids, strict=False):
            if mine != theirs:
                break
            common += 1
        read = len(ids) - min(common, len(ids) - 1)
        if self.cache and ids in self.seen:
            read = 1
        self.seen.append(ids)
        self.slot = ids + [0] * request["n_predict"]
        return {"timings": {"prompt_n": read}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of llama.cpp's server over a fake package."""
    fake = SimpleNamespace(CommonParams=lambda: MagicMock(), Server=FakeServer, __version__="1")
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.systems.llama_server", raising=False)
    yield importlib.import_module("benchmarks.peers.systems.llama_server")
    sys.modules.pop("benchmarks.peers.systems.llama_server", None)


@pytest.mark.parametrize("depth", [0, 30])
def test_server_reads_a_repeated_prompt_again(server: Any, depth: int) -> None:
    system = server.System("m.gguf", 1, 100)
    if depth:
        system.feed(list(range(1, depth + 1)))
    system.mark()
    for _ in range(3):
        system.feed([50, 51, 52])
        system.back()
        system.write(50, 4)
        system.back()
    assert system._server.slot[:depth] == list(range(1, depth + 1))


def test_server_that_answers_from_a_cache_is_found_out(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "cache", True)
    system = server.System("m.gguf", 1, 100)
    system.mark()
    system.feed([50, 51, 52])
    system.back()
    with pytest.raises(RuntimeError, match="read 1 of 3 tokens: a cache answered"):
        system.feed([50, 51, 52])


def test_server_gets_a_file_that_allows_the_context(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(100)
    writer.add_tensor("norm", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    assert files.longer_file(path, tmp_path, 100) == path
    longer = gguf.GGUFReader(str(files.longer_file(path, tmp_path, 1234)))
    assert longer.fields["llama.context_length"].contents() == 1234
    assert gguf.GGUFReader(str(path)).fields["llama.context_length"].contents() == 100
    np.testing.assert_array_equal(longer.tensors[0].data, np.ones(4, np.float32))
