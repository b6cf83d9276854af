"""What lies beside the graph, or is asked of it, is refused where it cannot be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import stand_in
from hostile.model_folders.spoiling import refused, rewrite

from allmem_runtime import ModelFileError, UsageError, load


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
        pytest.param(
            "generation_config.json",
            b'{"do_sample": true, "temperature": 1' + b"0" * 400 + b"}",
            id="generation beyond floats",
        ),
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
