"""No manifest of a model, however wrong, does more than be refused by the key that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hostile.model_folders.spoiling import Data, refused, rewrite

from allmem_runtime import spec


def put(path: str, value: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            data = data[parent]
        data[last] = value

    return change


def drop(path: str) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            data = data[parent]
        del data[last]

    return change


BAD_MANIFESTS = [
    (put("window", -1), "window"),
    (put("window", 0), "window"),
    (put("window", 1 << 60), "window"),
    (put("window", "64"), "window"),
    (put("window", 64.0), "window"),
    (put("window", True), "window"),
    (put("window", None), "window"),
    (put("sinks", -5), "sinks"),
    (put("chunk", 0), "chunk"),
    (put("chunk", 65), "chunk 65 is larger than window"),
    (put("backbone/layers", 10**9), "layers"),
    (put("backbone/kv_heads", 0), "kv_heads"),
    (put("backbone/kv_heads", 3), "kv_heads 3"),
    (put("backbone/query_heads", 10**9), "query_heads"),
    (put("backbone/vocab_size", 1 << 40), "vocab_size"),
    (put("backbone/head_dim", -4), "head_dim"),
    (put("backbone/extra", 1), "backbone.extra"),
    (drop("backbone/head_dim"), "backbone.head_dim"),
    (put("backbone", []), "backbone"),
    (put("memory/heads", 3), "memory.width 4 is no multiple of memory.heads 3"),
    (put("memory/hidden", 1 << 30), "memory.hidden"),
    (put("memory/kernel", 0), "memory.kernel"),
    (drop("memory"), "'memory'"),
    (put("cache", "float8"), "cache"),
    (put("cache", ["float16"]), "cache"),
    (put("activations", "float8"), "activations"),
    (put("activations", None), "activations"),
    (put("name", 5), "name"),
    (put("name", "n" * 2000), "name"),
    (put("weights", {}), "weights"),
    (put("operators", {"TTTMemory": 0}), "operators.TTTMemory"),
    (put("operators", {"TTTMemory": "1"}), "operators.TTTMemory"),
    (put("begin_tokens", [330]), "begin_tokens"),
    (put("end_tokens", [-1]), "end_tokens"),
    (put("end_tokens", "2"), "end_tokens"),
    (put("end_tokens", [1] * 65), "end_tokens"),
    (put("files", {"../secret": {"bytes": 1, "sha256": "0" * 64}}), "../secret"),
    (put("files", {"a/b": {"bytes": 1, "sha256": "0" * 64}}), "a/b"),
    (put("files", {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}), "/etc/passwd"),
    (put("files", {".hidden": {"bytes": 1, "sha256": "0" * 64}}), ".hidden"),
    (put("files/tokenizer.json/bytes", -1), "files.tokenizer.json.bytes"),
    (put("files/tokenizer.json/sha256", "xyz"), "files.tokenizer.json.sha256"),
    (put("files/tokenizer.json", 5), "files.tokenizer.json"),
    (put("source", {"url": 5}), "url"),
    (put("library", "evil.so"), "'library'"),
    (put("custom_ops", "evil.so"), "'custom_ops'"),
    (put("spec_version", 2), "spec_version is 2"),
    (drop("spec_version"), "spec_version is None"),
    (drop("files"), "'files'"),
]


@pytest.mark.parametrize(
    ("change", "key"),
    BAD_MANIFESTS,
    ids=[f"{i} {key[:40]}" for i, (_, key) in enumerate(BAD_MANIFESTS)],
)
def test_bad_manifest_is_refused_naming_the_key(
    folder: Path, change: Callable[[Data], None], key: str
) -> None:
    data = json.loads((folder / spec.MANIFEST_FILE).read_text())
    change(data)
    rewrite(folder, json.dumps(data))
    assert key in refused(folder).message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "not a JSON manifest", id="empty"),
        pytest.param("[]", "holds a list", id="list"),
        pytest.param("{" * 100, "not a JSON manifest", id="broken"),
        pytest.param("[" * 100_000, "not a JSON manifest", id="deep"),
        pytest.param('{"window": 1, "window": 2}', "'window' is there twice", id="repeated key"),
        pytest.param('{"window": NaN}', "NaN", id="NaN"),
        pytest.param('{"window": Infinity}', "Infinity", id="infinity"),
        pytest.param('{"window": 1' + "0" * 5000 + "}", "not a JSON manifest", id="huge number"),
        pytest.param(" " * (1 << 20) + "{}", "larger than", id="too large"),
    ],
)
def test_text_that_is_no_manifest_is_refused(folder: Path, text: str, message: str) -> None:
    rewrite(folder, text)
    assert message in refused(folder).message


def test_manifest_that_is_there_twice_is_refused(folder: Path) -> None:
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    model.metadata_props.add(key=spec.METADATA_KEY, value="{}")
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    assert "is there twice" in refused(folder).message
