"""A model folder is opened only if everything in it fits together."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import stand_in

from allmem_runtime import ModelFileError, spec
from allmem_runtime.files.digest import file_digest
from allmem_runtime.files.package import open_package
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.loaded_model import default_sampling


@pytest.mark.parametrize("what", ["folder", "graph"])
def test_folder_and_graph_open_the_same_model(toy_dir: Path, what: str) -> None:
    package = open_package(toy_dir if what == "folder" else toy_dir / "model.onnx")

    assert package.manifest.name == "stand-in"
    assert package.digest == file_digest(toy_dir / "model.onnx")
    assert package.tokenizer_digest == file_digest(toy_dir / "tokenizer.json")
    package.verify()


def test_model_opens_without_its_readable_copy_of_the_manifest(
    make_toy: Callable[..., Path],
) -> None:
    folder = make_toy()
    (folder / spec.MANIFEST_FILE).unlink()

    assert open_package(folder).manifest.name == "stand-in"


def test_manifest_in_the_graph_and_beside_it_must_agree(make_toy: Callable[..., Path]) -> None:
    folder = make_toy()
    data = json.loads((folder / spec.MANIFEST_FILE).read_text())
    data["window"] = 63
    (folder / spec.MANIFEST_FILE).write_text(json.dumps(data))

    with pytest.raises(ModelFileError, match=r"allmem\.json says window is 63, .* says 64"):
        open_package(folder)


@pytest.mark.parametrize("change", ["another size", "left out"])
def test_file_of_which_the_two_manifests_say_something_else_is_named(
    make_toy: Callable[..., Path], change: str
) -> None:
    folder = make_toy()
    data = json.loads((folder / spec.MANIFEST_FILE).read_text())
    if change == "left out":
        del data["files"]["tokenizer.json"]
    else:
        data["files"]["tokenizer.json"]["bytes"] += 1
    (folder / spec.MANIFEST_FILE).write_text(json.dumps(data))

    said = r"allmem\.json has another 'tokenizer\.json' in its files than model\.onnx\.$"
    with pytest.raises(ModelFileError) as told:
        open_package(folder)
    assert re.search(said, told.value.message)


@pytest.mark.parametrize("name", ["model.onnx.data", "tokenizer.json", "chat_template.jinja"])
def test_file_of_the_wrong_size_is_named(make_toy: Callable[..., Path], name: str) -> None:
    folder = make_toy()
    with (folder / name).open("ab") as file:
        file.write(b"x")

    with pytest.raises(ModelFileError, match=name + ".* the manifest says"):
        open_package(folder)


def test_verify_names_the_file_with_a_flipped_bit(make_toy: Callable[..., Path]) -> None:
    folder = make_toy()
    path = folder / spec.WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    package = open_package(folder)
    with pytest.raises(ModelFileError, match=r"model\.onnx\.data has the SHA-256"):
        package.verify()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda f: shutil.rmtree(f), "There is no ", id="nothing there"),
        pytest.param(lambda f: (f / "model.onnx").unlink(), "has no model.onnx", id="no graph"),
        pytest.param(
            lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json", id="no tokenizer"
        ),
        pytest.param(
            lambda f: (f / "model.onnx").write_bytes(b""), "model.onnx is empty", id="empty graph"
        ),
    ],
)
def test_missing_parts_are_named(
    make_toy: Callable[..., Path], prepare: Callable[[Path], object], message: str
) -> None:
    folder = make_toy()
    prepare(folder)

    with pytest.raises(ModelFileError) as caught:
        open_package(folder)
    assert message in caught.value.message
    assert caught.value.hint


def test_graph_without_a_manifest_is_no_model_of_ours(make_toy: Callable[..., Path]) -> None:
    folder = make_toy()
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    del model.metadata_props[:]
    (folder / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(ModelFileError, match=r"has no metadata 'allmem\.manifest'"):
        open_package(folder)


def test_external_data_must_be_in_the_manifest(make_toy: Callable[..., Path]) -> None:
    folder = make_toy()
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    (folder / spec.MANIFEST_FILE).unlink()
    stand_in.set_manifest(model, stand_in.manifest({}).to_json())
    (folder / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(ModelFileError, match=r"model\.onnx\.data, which its manifest lacks"):
        open_package(folder)


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        pytest.param({}, Sampling(), id="nothing said"),
        pytest.param({"temperature": 0.7}, Sampling(), id="values without do_sample"),
        pytest.param(
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": None},
            Sampling(temperature=0.6, top_k=20, top_p=0.95),
            id="drawing",
        ),
        pytest.param({"do_sample": True}, Sampling(temperature=1.0), id="drawing, no temperature"),
        pytest.param(
            {"repetition_penalty": 1.1, "eos_token_id": [1, 2], "transformers_version": "5"},
            Sampling(repetition_penalty=1.1),
            id="keys of no concern",
        ),
    ],
)
def test_answers_are_drawn_as_the_model_wants(
    generation: dict[str, object], expected: Sampling
) -> None:
    assert default_sampling(generation, "generation_config.json") == expected


@pytest.mark.parametrize("value", ["hot", -1, float("nan"), True])
def test_impossible_sampling_names_file_and_key(value: object) -> None:
    with pytest.raises(ModelFileError, match=r"generation_config\.json: temperature"):
        default_sampling({"do_sample": True, "temperature": value}, "generation_config.json")
