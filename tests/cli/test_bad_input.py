"""Every kind of bad input ends in one line with a remedy, the right exit code and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from commands import Command

from allmem_runtime.files import atomic
from allmem_runtime.spec import GRAPH_FILE, MANIFEST_FILE, METADATA_KEY, WEIGHTS_FILE

QUICK = ("--max-tokens", 3, "--device", "cpu", "--quiet")
QUESTION = ("--prompt", "What is it about?")


def no_graph(model: Path) -> None:
    (model / GRAPH_FILE).unlink()


def cut_graph(model: Path) -> None:
    data = (model / GRAPH_FILE).read_bytes()
    (model / GRAPH_FILE).write_bytes(data[: len(data) // 2])


def cut_weights(model: Path) -> None:
    data = (model / WEIGHTS_FILE).read_bytes()
    (model / WEIGHTS_FILE).write_bytes(data[:-1])


def no_weights(model: Path) -> None:
    (model / WEIGHTS_FILE).unlink()


def no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()


def change_manifest(**changes: object) -> Callable[[Path], None]:
    """The same changed manifest beside the graph and inside it."""

    def change(model: Path) -> None:
        values = {**json.loads((model / MANIFEST_FILE).read_text()), **changes}
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        (model / MANIFEST_FILE).write_text(text)
        graph = onnx.load(model / GRAPH_FILE, load_external_data=False)
        onnx.helper.set_model_props(graph, {METADATA_KEY: text})
        (model / GRAPH_FILE).write_bytes(graph.SerializeToString())

    return change


def other_manifest_beside(model: Path) -> None:
    text = (model / MANIFEST_FILE).read_text()
    (model / MANIFEST_FILE).write_text(text.replace('"window": 24', '"window": 25'))


def foreign_operator(model: Path) -> None:
    graph = onnx.load(model / GRAPH_FILE, load_external_data=False)
    graph.graph.node[0].domain = "evil.example"
    (model / GRAPH_FILE).write_bytes(graph.SerializeToString())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(shutil.rmtree, "model", id="no folder"),
        pytest.param(no_graph, GRAPH_FILE, id="no graph"),
        pytest.param(cut_graph, GRAPH_FILE, id="graph cut in half"),
        pytest.param(no_weights, WEIGHTS_FILE, id="no weights"),
        pytest.param(cut_weights, WEIGHTS_FILE, id="weights short of a byte"),
        pytest.param(no_tokenizer, "tokenizer.json", id="no tokenizer"),
        pytest.param(change_manifest(window=-1), "window is -1", id="negative window"),
        pytest.param(change_manifest(chunk=4096), "chunk 4096", id="chunk beyond the window"),
        pytest.param(change_manifest(spec_version=9), "spec_version is 9", id="future version"),
        pytest.param(change_manifest(library="x.so"), "'library'", id="names a library"),
        pytest.param(other_manifest_beside, MANIFEST_FILE, id="two manifests"),
        pytest.param(foreign_operator, "evil.example", id="unknown operator domain"),
    ],
)
def test_a_damaged_model_is_refused(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path,
    damage: Callable[[Path], None], says: str,
) -> None:  # fmt: skip
    model = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    damage(model)
    result = command("allmem-run", model, document, *QUESTION, *QUICK)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("allmem-run: error: ")
    assert result.err.count("\n") == 1
    assert says in result.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(random.Random(0).randbytes(5000), "text", id="binary garbage"),
        pytest.param(b"PK\x03\x04" + bytes(500), "archive", id="an archive"),
        pytest.param(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(500), "PDF document", id="a PDF"),
        pytest.param(None, "nothing to read in", id="an empty folder"),
    ],
)
def test_a_source_that_is_no_text_is_refused(
    command: Command, tiny_model_dir: Path, tmp_path: Path, content: bytes | None, says: str
) -> None:
    source = tmp_path / "source.txt"
    if content is None:
        source.mkdir()
    else:
        source.write_bytes(content)
    result = command("allmem-run", tiny_model_dir, source, *QUESTION, *QUICK)
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1
    assert "source.txt" in result.err
    assert says in result.err


def test_a_session_changed_anywhere_is_refused(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    assert command("allmem-run", tiny_model_dir, document, "--session", session, *QUICK).code == 0
    good = session.read_bytes()
    draw = random.Random(1)
    for _ in range(20):
        flipped = bytearray(good)
        flipped[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        for damaged in (bytes(flipped), good[: draw.randrange(len(good))]):
            session.write_bytes(damaged)
            result = command("allmem-run", tiny_model_dir, "--session", session, *QUESTION, *QUICK)
            assert (result.code, result.out) == (1, "")
            assert "s.allmem" in result.err
            assert result.err.count("\n") == 1
            assert session.read_bytes() == damaged, "a damaged file is never written over"


def test_a_full_disk_keeps_the_old_session(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    session = tmp_path / "s.allmem"
    assert command("allmem-run", tiny_model_dir, document, "--session", session, *QUICK).code == 0
    before = session.read_bytes()
    more = tmp_path / "more.txt"
    more.write_text("More to read. " * 50)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    result = command("allmem-run", tiny_model_dir, more, "--session", session, *QUICK)
    assert result.code == 1
    assert "No space left" in result.err
    assert "Make room" in result.err
    assert session.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == []


def test_a_session_in_a_read_only_folder_is_asked_and_not_read_into(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    session = tmp_path / "s.allmem"
    arguments = (tiny_model_dir, "--session", session, *QUICK, *QUESTION)
    assert command("allmem-run", *arguments, document).code == 0
    monkeypatch.setattr("os.access", lambda path, mode, **_: mode != os.W_OK)  # whoever we are
    asked = command("allmem-run", *arguments)
    assert (asked.code, asked.err) == (0, "") and asked.out
    refused = command("allmem-run", *arguments, document)
    assert refused.code == 1 and "is read-only" in refused.err


def test_a_text_is_not_called_a_damaged_session(
    command: Command, tiny_model_dir: Path, document: Path
) -> None:
    kept = document.read_bytes()
    for result in (
        command("allmem", "info", document),
        command("allmem-run", tiny_model_dir, document, "--session", document, *QUICK, *QUESTION),
    ):
        assert result.code == 1 and "Name a file that was saved as a session" in result.err
    assert document.read_bytes() == kept
