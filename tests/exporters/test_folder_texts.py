"""What a folder says of its tokenizer outside of tokenizer.json is not lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TOKENS, write_folder
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ConversionError
from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.sources import open_source

NEXT = len(TOKENS)
"""The id of the first token that tokenizer.json lacks."""
ROWS = NEXT + 2
TEXT = "th<tool>1<think> the</think>th"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_folder(tmp_path / "pretrained", vocab_size=ROWS)
    return tmp_path / "pretrained"


def change_json(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(values | changes))


def written(source: Path, out: Path) -> Tokenizer:
    out.mkdir()
    open_source(str(source)).write_texts(out)
    return Tokenizer.from_file(str(out / "tokenizer.json"))


def described(token: str, **flags: bool) -> dict[str, object]:
    return {"content": token, "lstrip": False, "rstrip": False, "normalized": False,
            "single_word": False, "special": False, **flags}  # fmt: skip


IN_SETTINGS = {"added_tokens_decoder": {
    "0": described(TOKENS[0], special=True), str(NEXT): described("<tool>", special=True),
    str(NEXT + 1): described("<think>", rstrip=True)}}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", IN_SETTINGS),
        ("added_tokens.json", {"<think>": NEXT + 1, "<tool>": NEXT}),
        ("tokenizer_config.json", {"additional_special_tokens": ["<tool>", "<think>"]}),
        ("special_tokens_map.json", {"pad_token": "<tool>", "cls_token": {"content": "<think>"}}),
        ("tokenizer_config.json", {"extra_special_tokens": {"image_token": "<tool>"}}),
    ],
    ids=["settings", "added tokens", "special tokens", "named tokens", "tokens of a model"],
)
def test_tokens_that_stand_elsewhere_are_added_as_transformers_adds_them(
    source: Path, tmp_path: Path, file: str, values: dict[str, object]
) -> None:
    change_json(source / file, **values)
    found = written(source, tmp_path / "out")
    wanted = AutoTokenizer.from_pretrained(source, local_files_only=True)
    assert found.token_to_id("<tool>") == NEXT
    assert found.encode(TEXT).ids == wanted(TEXT, add_special_tokens=False)["input_ids"]
    assert "<tool>" in found.encode(TEXT).tokens


def test_converted_model_knows_them(source: Path, tmp_path: Path) -> None:
    change_json(source / "tokenizer_config.json", **IN_SETTINGS)
    out = convert(source, tmp_path / "out", window=32, mem_width=16)
    assert Tokenizer.from_file(str(out / "tokenizer.json")).token_to_id("<think>") == NEXT + 1


def test_token_of_the_vocabulary_keeps_its_id_when_it_becomes_special(
    source: Path, tmp_path: Path
) -> None:
    change_json(source / "tokenizer_config.json", eos_token=TOKENS[2])
    found = written(source, tmp_path / "out")
    assert found.encode(f"th{TOKENS[2]}").ids == [TOKENS.index("th"), 2]


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("added_tokens.json", {"<tool>": 7}, "'<tool>' is 7 in .*; tokenizer.json makes it 97"),
        ("added_tokens.json", {"<tool>": NEXT + 1}, "tokenizer.json makes it 97"),
        (
            "added_tokens.json",
            {"<tool>": "x"},
            "added_tokens.json does not say what token '<tool>'",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"97": {"content": 5}}},
            "does not say what token 'added_tokens_decoder.97'",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": 5}, "does not say what token"),
    ],
)
def test_added_tokens_that_contradict_each_other_are_refused(
    source: Path, tmp_path: Path, file: str, values: dict[str, object], said: str
) -> None:
    change_json(source / file, **values)
    with pytest.raises(ConversionError, match=said):
        written(source, tmp_path / "out")


def test_two_tokens_for_one_id_are_refused(source: Path, tmp_path: Path) -> None:
    change_json(source / "tokenizer_config.json", **IN_SETTINGS)
    change_json(source / "added_tokens.json", **{"<other>": NEXT})
    with pytest.raises(ConversionError, match="two tokens for 97, '<tool>' and '<other>'"):
        written(source, tmp_path / "out")


def test_named_token_without_a_row_is_left_out(source: Path, tmp_path: Path) -> None:
    change_json(source / "tokenizer_config.json", additional_special_tokens=["<a>", "<b>", "<c>"])
    found = written(source, tmp_path / "out")
    assert [found.token_to_id(token) for token in ("<a>", "<b>", "<c>")] == [NEXT, NEXT + 1, None]


@pytest.mark.parametrize("way", ["convert", "make"])
def test_tokenizer_with_more_tokens_than_rows_is_refused_before_weights_are_read(
    source: Path, tmp_path: Path, way: str
) -> None:
    tokens = {"<tool>": NEXT, "<think>": NEXT + 1, "<more>": NEXT + 2}
    change_json(source / "added_tokens.json", **tokens)
    lines: list[str] = []
    options = MemoryOptions(window=32, mem_width=16)
    with pytest.raises(ConversionError, match="knows 100 tokens, .* 99 rows; '<more>' is 99"):
        if way == "convert":
            convert(source, tmp_path / "out", options)
        else:
            make(source, tmp_path / "out", options, ExportOptions(), report=lines.append)
    assert not (tmp_path / "out").exists() and not any("tracing" in line for line in lines)


# Chat templates ---------------------------------------------------------------------------------


def templates(*names: str) -> dict[str, object]:
    return {"chat_template": [{"name": name, "template": f"{name}!"} for name in names]}


def test_template_for_chats_is_the_default_one(source: Path, tmp_path: Path) -> None:
    change_json(source / "tokenizer_config.json", **templates("tool_use", "default"))
    written(source, tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "default!"


def test_templates_of_which_none_is_for_chats_are_refused_by_name(
    source: Path, tmp_path: Path
) -> None:
    change_json(source / "tokenizer_config.json", **templates("rag", "tool_use"))
    with pytest.raises(ConversionError, match=r"has 2 chat templates \(rag, tool_use\)"):
        convert(source, tmp_path / "out", window=32, mem_width=16)
    (source / "chat_template.jinja").write_text("mine!")
    written(source, tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "mine!"
