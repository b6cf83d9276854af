"""No model folder, however damaged or malicious, does more than be refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import stand_in
from onnx import TensorProto, helper

from allmem_runtime import Model, ModelFileError, UsageError, load, spec
from allmem_runtime.files.package import open_package

Data = dict[str, Any]


@pytest.fixture
def folder(make_toy: Callable[..., Path]) -> Path:
    return make_toy()


def refused(folder: Path) -> ModelFileError:
    """Opening fails with an error that names a file of the folder and advises something."""
    with pytest.raises(ModelFileError) as caught:
        load(folder, device="cpu", operators="portable")
    assert str(folder) in caught.value.message
    assert caught.value.hint
    return caught.value


def rewrite(folder: Path, text: str) -> None:
    """Put another manifest into the graph and drop the readable copy."""
    (folder / spec.MANIFEST_FILE).unlink(missing_ok=True)
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    stand_in.set_manifest(model, text)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())


# The graph file -------------------------------------------------------------------------------


def test_graph_cut_anywhere_is_refused(folder: Path) -> None:
    path = folder / spec.GRAPH_FILE
    good = path.read_bytes()
    for place in [*range(1, 300), *range(300, len(good), 211), len(good) - 1]:
        path.write_bytes(good[:place])
        with pytest.raises(ModelFileError, match=r"model\.onnx"):
            load(folder, device="cpu", operators="portable")


def test_flipped_bits_of_the_graph_never_crash(folder: Path, toy: Model) -> None:
    """A flipped bit may give another valid graph; then the model opens, else it is refused."""
    path = folder / spec.GRAPH_FILE
    good = path.read_bytes()
    draw = random.Random(1)
    refusals = 0
    for _ in range(150):
        data = bytearray(good)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            load(folder, device="cpu", operators="portable", threads=1)
        except ModelFileError as error:
            refusals += 1
            assert str(folder) in error.message
    assert refusals > 30


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 1000, id="zeros"),
        pytest.param(b"PK\x03\x04" * 50, id="zip"),
        pytest.param(b"\x80\x04\x95" + b"x" * 200, id="pickle"),
        pytest.param(b"GGUF" + b"\0" * 200, id="gguf"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", id="pointer to a large file"),
        pytest.param(b"<!DOCTYPE html><html></html>", id="error page"),
        pytest.param(b"\x3a\xff\xff\xff\xff\x0f", id="graph of 4 GB in 6 bytes"),
        pytest.param(b"\x08" + b"\xff" * 20, id="endless number"),
        pytest.param(b"\x3a\x02\x0a\x00", id="graph with one empty node"),
        pytest.param(b"\x3a\x04\x0b\x0c\x0b\x0c", id="groups"),
    ],
)
def test_what_is_no_graph_is_refused(folder: Path, data: bytes) -> None:
    (folder / spec.GRAPH_FILE).write_bytes(data)
    refused(folder)


def test_random_bytes_are_refused(folder: Path) -> None:
    draw = random.Random(2)
    for _ in range(300):
        (folder / spec.GRAPH_FILE).write_bytes(draw.randbytes(1 + draw.randrange(200)))
        refused(folder)


def test_cyclic_graph_is_refused(folder: Path) -> None:
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    nodes = list(model.graph.node)
    nodes[0].input[0] = nodes[-1].output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    assert "does not load" in refused(folder).message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda g: g.input.pop(1), "does not load", id="input missing"),
        pytest.param(
            lambda g: g.input.append(
                helper.make_tensor_value_info("past.9.key", TensorProto.FLOAT, [1])
            ),
            "'past.9.key' is unknown",
            id="input too many",
        ),
        pytest.param(lambda g: g.output.pop(3), "'present.0.weights' is missing", id="output gone"),
        pytest.param(
            lambda g: g.input.insert(
                0, helper.make_tensor_value_info("extra", TensorProto.INT64, [1])
            ),
            "'extra' is unknown",
            id="input of no meaning",
        ),
    ],
)
def test_graph_that_is_not_its_manifests_is_refused(
    folder: Path, change: Callable[[Any], None], message: str
) -> None:
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    change(model.graph)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    assert message in refused(folder).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"window": 60}, "'past.0.key' has the shape", id="window"),
        pytest.param({"cache": "float32"}, "'past.0.key' is tensor(float16)", id="cache type"),
        pytest.param(
            {"memory": stand_in.config.Memory(1, 4, 9, 4)}, "'past.0.weights'", id="hidden"
        ),
        pytest.param(
            {"backbone": stand_in.config.Backbone("llama", 3, 8, 16, 2, 1, 4, 330, 2048)},
            "'past.2.key' is missing",
            id="layers",
        ),
        pytest.param(
            {"backbone": stand_in.config.Backbone("llama", 2, 8, 16, 2, 1, 4, 331, 2048)},
            "'logits' has the shape",
            id="vocabulary",
        ),
    ],
)
def test_manifest_that_is_not_its_graphs_is_refused(
    folder: Path, changes: Data, message: str
) -> None:
    files = {
        name: (folder / name).read_bytes()
        for name in ("tokenizer.json", "model.onnx.data", "generation_config.json")
    }
    rewrite(folder, stand_in.manifest(files, **changes).to_json())
    assert message in refused(folder).message


# The manifest ---------------------------------------------------------------------------------


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
        pytest.param("[]", "is a list", id="list"),
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


# Paths ----------------------------------------------------------------------------------------


def keep_data_in(folder: Path, location: str, **entries: str) -> None:
    """Let the graph look for its weights elsewhere."""
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.external_data:
            del tensor.external_data[:]
            for key, value in {"location": location, **entries}.items():
                tensor.external_data.add(key=key, value=value)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "location",
    [
        "../model.onnx.data",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/../model.onnx.data",
        "sub/model.onnx.data",
        "./model.onnx.data",
        "C:\\weights",
        "..\\model.onnx.data",
        "model.onnx.data\0.txt",
        "\\\\server\\share",
        "*/_ORT_MEM_ADDR_/*",
        ".hidden",
        "x" * 200,
    ],
)
def test_weights_outside_the_folder_are_refused(folder: Path, location: str) -> None:
    shutil.copy(folder / "model.onnx.data", folder.parent / "model.onnx.data")
    keep_data_in(folder, location)
    assert "not a plain file name" in refused(folder).message


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-8"},
        {"length": "1e3"},
        {"length": "١٢"},
        {"offset": "9" * 30},
        {"offset": "0", "length": "99999999"},
        {"offset": "99999999"},
    ],
    ids=str,
)
def test_weights_past_the_end_of_their_file_are_refused(
    folder: Path, entries: dict[str, str]
) -> None:
    keep_data_in(folder, "model.onnx.data", **entries)
    message = refused(folder).message
    assert "external data has the" in message or "wants" in message


@pytest.mark.parametrize(
    "name",
    ["model.onnx", "model.onnx.data", "tokenizer.json", "chat_template.jinja", "allmem.json"],
)
@pytest.mark.parametrize(
    "kind", ["link outside", "dangling link", "loop", "pipe", "device", "folder"]
)
def test_what_is_no_file_of_the_folder_is_refused(
    folder: Path, tmp_path: Path, name: str, kind: str
) -> None:
    path = folder / name
    outside = tmp_path / "outside"
    path.rename(outside)
    if kind == "link outside":
        path.symlink_to(outside)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert name in refused(folder).message


def test_link_within_the_folder_is_allowed(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "other.json")
    (folder / "tokenizer.json").symlink_to("other.json")
    model = load(folder, device="cpu", operators="portable")
    assert model.tokenizer.decode(model.tokenizer.encode_text("linked")) == "linked"


def hub_cache(folder: Path, root: Path) -> Path:
    """The folder as a hub client lays it out: links into a store of blobs."""
    repository = root / "models--someone--book"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, repository / "blobs" / f"{number:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064x}")
    return snapshot


@pytest.mark.parametrize("what", ["folder", "graph"])
def test_hub_cache_opens(folder: Path, tmp_path: Path, what: str) -> None:
    snapshot = hub_cache(folder, tmp_path)
    model = load(
        snapshot if what == "folder" else snapshot / "model.onnx",
        device="cpu",
        operators="portable",
    )
    model.package.verify()
    assert model.session().feed([3, 4], "last") is not None


def test_link_from_one_hub_repository_into_another_is_refused(folder: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(folder, tmp_path)
    other = tmp_path / "models--someone--else" / "blobs"
    other.mkdir(parents=True)
    shutil.copy(folder / "tokenizer.json", other / "f")
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(other / "f")
    assert "outside the model's folder" in refused(snapshot).message


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "no/such/place"])
def test_impossible_path_is_refused(path: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        open_package(path)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["Modell größer 🙂", "with space", "a" * 200])
def test_folder_of_any_name_opens(make_toy: Callable[..., Path], name: str) -> None:
    folder = make_toy(name)
    assert load(folder, device="cpu", operators="portable").package.folder.samefile(folder)


# Companions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("tokenizer.json", b"{}", id="tokenizer without a model"),
        pytest.param("tokenizer.json", b"\xff\xfe", id="tokenizer that is not UTF-8"),
        pytest.param("generation_config.json", b"[]", id="generation that is a list"),
        pytest.param("generation_config.json", b"{", id="generation that is no JSON"),
        pytest.param("generation_config.json", b"[" * 100_000, id="deep generation"),
        pytest.param("generation_config.json", b"\xff", id="generation that is not UTF-8"),
        pytest.param("generation_config.json", b" " * ((1 << 20) + 1), id="large generation"),
        pytest.param("chat_template.jinja", b"\xff", id="template that is not UTF-8"),
        pytest.param("chat_template.jinja", b"{% for", id="template that is no template"),
        pytest.param("chat_template.jinja", b"{{ ''.__class__.__mro__ }}", id="template that digs"),
    ],
)
def test_damaged_companion_is_refused(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.suffix != ".onnx"}
    del files["allmem.json"]
    rewrite(folder, stand_in.manifest(files).to_json())
    with pytest.raises(ModelFileError) as caught:
        load(folder, device="cpu", operators="portable")
    assert caught.value.hint


def test_tokenizer_of_a_larger_model_is_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {**tokenizer["added_tokens"][0], "id": 5000, "content": "<|far|>"}
    )
    tokenizer["model"]["vocab"]["<|far|>"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.suffix != ".onnx"}
    del files["allmem.json"]
    rewrite(folder, stand_in.manifest(files).to_json())
    assert "knows 5001 tokens, the model 330" in refused(folder).message


@pytest.mark.parametrize("threads", [0, -1, 10_000, True])
def test_impossible_number_of_threads_is_refused(folder: Path, threads: int) -> None:
    with pytest.raises(UsageError, match="threads"):
        load(folder, device="cpu", operators="portable", threads=threads)
