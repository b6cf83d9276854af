"""A model reads what lies in its folder, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hostile.model_folders.spoiling import refused

from allmem_runtime import ModelFileError, load, spec
from allmem_runtime.files.package import open_package


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
