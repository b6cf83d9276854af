"""Folders that somebody else made: no code of theirs runs, and nothing outside them is read."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import write_folder

from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_exporters.onnx.export import export
from allmem_exporters.tokenizer_works import Conversion

SETTINGS = {
    "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
    "attn_implementation": "someone/kernel",
    "_attn_implementation": {"": "someone/kernel"},
    "trust_remote_code": True,
}


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A file that only exists once code of a folder has run."""
    return tmp_path / "has run"


@pytest.fixture
def source(tmp_path: Path, evil: Path) -> Path:
    """A pretrained decoder with a module beside it that would leave a trace."""
    folder = tmp_path / "source"
    write_folder(folder)
    (folder / "evil.py").write_text(f"open({str(evil)!r}, 'w').close()\nclass Evil: pass\n")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint_dir: Path, evil: Path) -> Path:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint_dir, folder)
    (folder / "evil.py").write_text(f"open({str(evil)!r}, 'w').close()\nclass Evil: pass\n")
    return folder


def change(path: Path, **values: Any) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **values}))


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("with_tokenizer", [True, False], ids=["tokenizer", "no tokenizer"])
def test_source_that_asks_for_code_is_refused_by_name(
    source: Path, tmp_path: Path, evil: Path, file: str, key: str, with_tokenizer: bool
) -> None:
    change(source / file, **{key: SETTINGS[key]})
    if not with_tokenizer:
        (source / "tokenizer.json").unlink()
    with pytest.raises(ConversionError, match=f"{file} asks for .*{key}"):
        convert(source, tmp_path / "out")
    assert not evil.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", SETTINGS)
def test_checkpoint_that_asks_for_code_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, evil: Path, key: str
) -> None:
    change(checkpoint / "config.json", **{key: SETTINGS[key]})
    with pytest.raises(ConversionError, match=f"config.json asks for .*{key}"):
        export(checkpoint, tmp_path / "out", check=False)
    assert not evil.exists() and not (tmp_path / "out").exists()


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("kind", ["source", "checkpoint"])
def test_pickled_weights_are_never_opened(
    request: pytest.FixtureRequest, tmp_path: Path, evil: Path, kind: str
) -> None:
    folder = request.getfixturevalue(kind)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(evil)))
    with pytest.raises(ConversionError, match="no weights in safetensors form"):
        convert(folder, tmp_path / "out") if kind == "source" else open_checkpoint(folder, "auto")
    assert not evil.exists()


def test_checkpoint_beside_an_adapter_of_another_library_loads_no_adapter(checkpoint: Path) -> None:
    plain = open_checkpoint(checkpoint, "auto").state_dict()
    (checkpoint / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "someone/model", "peft_type": "LORA"})
    )
    (checkpoint / "adapter_model.bin").write_bytes(b"not read")
    again = open_checkpoint(checkpoint, "auto").state_dict()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize(
    ("key", "value"), [("num_labels", 1 << 40), ("windw", 8), ("pruned_heads", {"0": [1]})]
)
def test_checkpoint_with_an_unknown_option_is_refused_by_name(
    checkpoint: Path, key: str, value: object
) -> None:
    change(checkpoint / "config.json", **{key: value})
    with pytest.raises(ConfigError, match=f"config.json: '{key}' is no option"):
        open_checkpoint(checkpoint, "auto")


def test_source_with_endless_class_labels_converts_without_them(
    source: Path, tmp_path: Path
) -> None:
    change(source / "config.json", num_labels=1 << 40)
    assert (convert(source, tmp_path / "out") / "config.json").is_file()


FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
         "chat_template.jinja", "generation_config.json", "README.md")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_source_is_not_read_through_a_link_out_of_it(
    source: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    if (source / name).exists():
        (source / name).rename(outside)
    else:
        outside.write_text("secret")
    (source / name).symlink_to(outside)
    with pytest.raises(ConversionError, match=f"{name} is a link to .*outside the folder"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "chat_template.jinja", "provenance.json"]
)
def test_checkpoint_is_not_read_through_a_link_out_of_it(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    if (checkpoint / name).exists():
        (checkpoint / name).rename(outside)
    else:
        outside.write_text("secret")
    (checkpoint / name).symlink_to(outside)
    with pytest.raises(ConversionError, match=f"{name} is a link to .*outside the folder"):
        export(checkpoint, tmp_path / "out", check=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "special_tokens_map.json"])
def test_tokenizer_in_another_form_is_not_read_through_a_link_out_of_the_folder(
    source: Path, tmp_path: Path, name: str
) -> None:
    in_another_form(source)
    (source / name).rename(tmp_path / "outside")
    (source / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ConversionError, match=f"{name} is a link to .*outside the folder"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenizer_in_another_form_is_made_of_its_folder_alone(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_another_form(source)
    change(source / "tokenizer_config.json", vocab_file="/etc/passwd", name_or_path="/etc",
           cache_dir="/etc", mecab_kwargs={"mecab_option": "-r /etc/passwd"})  # fmt: skip
    seen: list[tuple[set[str], dict[str, Any]]] = []

    def run(work: Conversion) -> None:
        folder = Path(work.folder)
        names = {path.name for path in folder.iterdir()}
        seen.append((names, json.loads((folder / "tokenizer_config.json").read_text())))
        shutil.copyfile(tokenizer, Path(work.out) / "tokenizer.json")

    tokenizer = tmp_path / "tokenizer.json"
    monkeypatch.setattr(Conversion, "run", run)
    (tmp_path / "source" / "tokenizer.json.kept").rename(tokenizer)
    convert(source, tmp_path / "out")
    ((names, settings),) = seen
    assert names == {"config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
                     "tokenizer_config.json", "generation_config.json"}  # fmt: skip
    assert settings.keys() == {"tokenizer_class"}


def in_another_form(folder: Path) -> None:
    """Give a folder what a tokenizer.json could be made of, in its place."""
    (folder / "tokenizer.json").rename(folder / "tokenizer.json.kept")
    vocabulary = {chr(code): code - 33 for code in range(33, 127)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "special_tokens_map.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')


def test_snapshot_of_a_hub_cache_converts(source: Path, tmp_path: Path) -> None:
    """There every file is a link into the blobs of the same repository."""
    repository = tmp_path / "models--someone--model"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for number, path in enumerate(p for p in source.iterdir() if p.suffix != ".py"):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert (convert(snapshot, tmp_path / "out") / "config.json").is_file()


@pytest.mark.parametrize(
    "text", ["[" * 50_000, "[1]", "{", '{"model_type": "allmem", "window": 0}']
)
def test_configuration_that_makes_no_sense_is_refused_by_name(checkpoint: Path, text: str) -> None:
    (checkpoint / "config.json").write_text(text)
    with pytest.raises((ConversionError, ConfigError)):
        open_checkpoint(checkpoint, "auto")


def test_weight_without_a_place_and_one_that_is_missing_are_named(checkpoint: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    save_file({**weights, "more": torch.zeros(2)}, file)
    with pytest.raises(ConversionError, match="the weight more has no place"):
        open_checkpoint(checkpoint, "auto")
    weights.pop("model.norm.weight")
    save_file(weights, file)
    with pytest.raises(ConversionError, match="lacks the weight model.norm.weight"):
        open_checkpoint(checkpoint, "auto")
