"""Tokenizers of other forms are converted in a process of its own, which has limits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import tokenizers
from checkpoints import write_folder, write_gguf
from hostile.fuzz.formats._gguf_parts import Field, put_together, taken_apart
from transformers.integrations.gguf import gguf_tokenizer_mapping

from allmem_exporters import tokenizer_conversion, tokenizer_file
from allmem_exporters.convert.calibrated_weights import calibrated
from allmem_exporters.errors import ConversionError
from allmem_exporters.sources import open_source
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.sources.gguf_metadata import Metadata
from allmem_exporters.sources.gguf_tokenizer import write_tokenizer
from allmem_exporters.tokenizer_conversion import _apart as apart  # the other tests do without
from allmem_exporters.tokenizer_conversion import encoded
from allmem_exporters.tokenizer_works import Conversion, Encoding
from allmem_runtime.text.tokenizer import Tokenizer

LETTERS = [chr(code) for code in range(33, 127)]


def of_words(folder: Path, words: list[str]) -> Conversion:
    """A folder with a vocabulary and merges instead of a tokenizer.json."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    known = dict.fromkeys([*LETTERS, *words])
    vocabulary = {word: number for number, word in enumerate(known)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    return Conversion(str(folder), str(folder.parent / "out"))


def test_another_process_makes_what_this_one_makes(tmp_path: Path) -> None:
    wanted = of_words(tmp_path / "folder", ["th", "he"])
    made = []
    for number, convert in enumerate((apart, tokenizer_conversion._failure)):
        out = tmp_path / str(number)
        assert convert(Conversion(wanted.folder, str(out))) == ""
        made.append((out / "tokenizer.json").read_text(encoding="utf-8"))
    assert made[0] == made[1] and "th" in json.loads(made[0])["model"]["vocab"]


def test_conversion_without_end_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_conversion, "SECONDS", 0)
    monkeypatch.setattr(tokenizer_conversion, "_apart", apart)
    large = of_words(tmp_path / "folder", [f"{number:x}" for number in range(400_000)])
    with pytest.raises(ConversionError, match=r"no tokenizer \(it takes more than 0 seconds\)"):
        tokenizer_conversion.convert_tokenizer(large, "no tokenizer", "Fetch another.")


def test_tokenizer_that_takes_too_much_memory_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_conversion, "MEMORY", 1 << 20)
    found = apart(of_words(tmp_path / "folder", [f"{number:x}" for number in range(400_000)]))
    assert "memory" in found


def test_failure_of_the_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_conversion, "_apart", apart)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConversionError, match="no tokenizer"):
        tokenizer_conversion.convert_tokenizer(
            Conversion(str(tmp_path), str(tmp_path / "out")), "no tokenizer", "Add one."
        )


def test_program_in_one_piece_converts_in_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = of_words(tmp_path / "folder", ["th"])
    monkeypatch.setattr("sys.frozen", True, raising=False)
    monkeypatch.setattr(tokenizer_conversion, "told", None)
    assert apart(wanted) == ""
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_token_of_a_gguf_that_is_longer_than_any_is_refused(tmp_path: Path) -> None:
    """Its merges would be looked for in a time that grows with the square of its length."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    parts = taken_apart(file.read_bytes())
    parts.fields = [
        Field(f.key, f.kind, f.value.replace(b"\x01\0\0\0\0\0\0\0!", _text(b"!" * 3000)))
        if f.key == b"tokenizer.ggml.tokens" else f
        for f in parts.fields
    ]  # fmt: skip
    file.write_bytes(put_together(parts))
    (tmp_path / "out").mkdir()
    with pytest.raises(ConversionError, match="3,000 of them in one token"):
        open_source(str(file)).write_texts(tmp_path / "out")


def test_tokenizer_of_a_gguf_is_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(tokenizer_conversion, "_apart", apart)
    monkeypatch.setattr(tokenizers.models, "BPE", None)  # this process can make none
    open_source(str(tmp_path / "tiny.gguf")).write_texts(tmp_path)
    assert "th" in json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]


@pytest.mark.parametrize("limit", ["SECONDS", "MEMORY"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_tokenizer_of_a_gguf_that_takes_too_much_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, kind: str
) -> None:
    words = [f"{number:x}" for number in range(400_000)]
    fields = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [1.0] * len(words),
    }
    metadata = Metadata(cast("GgufFile", SimpleNamespace(fields=fields, path=Path("many.gguf"))))
    monkeypatch.setattr(tokenizer_conversion, "_apart", apart)
    monkeypatch.setattr(tokenizer_conversion, limit, 0)
    with pytest.raises(ConversionError, match=r"many\.gguf: its tokenizer .* \(it .*takes .*\)"):
        write_tokenizer(metadata, len(words), tmp_path)
    assert not list(tmp_path.iterdir())


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def calibration(folder: Path, **changes: object) -> Encoding:
    """A text for the tokenizer that a folder gets."""
    write_folder(folder)
    return replace(Encoding(str(folder), "the other thing <|x|> " * 400, 2048), **changes)


def test_text_is_encoded_elsewhere_as_here_and_as_the_runtime_reads_it(tmp_path: Path) -> None:
    text = calibration(tmp_path / "folder", most=1500)
    found: list[list[int]] = []
    assert apart(text, found) == ""
    (there,) = found
    assert there == text.run() and len(there) == 1500
    tokenizer = Tokenizer.from_file(tmp_path / "folder" / "tokenizer.json")
    assert tokenizer.encode_text(text.text)[:1500] == there


@pytest.mark.parametrize(("limit", "value"), [("SECONDS", 0), ("MEMORY", 1 << 12)])
def test_calibration_text_that_takes_too_much_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(tokenizer_conversion, "_apart", apart)
    monkeypatch.setattr(tokenizer_conversion, limit, value)
    text = calibration(tmp_path / "folder")
    with pytest.raises(ConversionError, match=r"cannot encode the calibration text \(it .*takes"):
        calibrated(None, Path(text.folder), text.text)  # type: ignore[arg-type]


def test_only_as_much_of_a_text_is_encoded_as_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def told(module: str, task: bytes, seconds: float) -> tuple[bytes, int]:
        given.append(len(task))
        return b'{"failure": "", "found": []}', 0

    monkeypatch.setattr(tokenizer_conversion, "_apart", apart)
    monkeypatch.setattr(tokenizer_conversion, "told", told)
    encoded(Encoding(str(tmp_path), "a " * (1 << 20), 16), "a", "b")
    assert given[0] < 16 * 64 + 1000


@pytest.fixture
def only_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process makes no tokenizer of what a file or folder describes, and compares none."""
    monkeypatch.setattr(tokenizer_conversion, "_apart", apart)

    def refused(*given: object) -> None:
        raise AssertionError("the library reads a stranger's tokenizer in this process")

    monkeypatch.setattr(tokenizer_file.Tokenizer, "from_str", refused, raising=False)
    monkeypatch.setattr(gguf_tokenizer_mapping, "get_gguf_tokenizer", refused)


@pytest.mark.usefixtures("only_apart")
def test_tokenizer_of_a_gguf_is_compared_elsewhere(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    source = open_source(str(tmp_path / "tiny.gguf"))
    source.write_texts(tmp_path)
    assert re.fullmatch("tokens of .. awkward texts are .*", source.compare_texts(tmp_path) or "")
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"] = [["1", "2"]]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ConversionError, match=r"tiny\.gguf: its tokenizer cuts .*The key"):
        source.compare_texts(tmp_path)


@pytest.mark.usefixtures("only_apart")
@pytest.mark.parametrize(("limit", "value"), [("SECONDS", 0), ("MEMORY", 1 << 12)])
def test_comparison_that_takes_too_much_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    source = open_source(str(tmp_path / "tiny.gguf"))
    source.write_texts(tmp_path)
    text = tokenizer_with(tmp_path / "tokenizer.json", [f"{n:x}" for n in range(400_000)])
    (tmp_path / "tokenizer.json").write_text(text)
    monkeypatch.setattr(tokenizer_conversion, limit, value)
    with pytest.raises(ConversionError, match=r"no tokenizer of it .* \(it .*takes .*\)") as caught:
        source.compare_texts(tmp_path)
    assert "--no-check" in caught.value.hint


@pytest.mark.usefixtures("only_apart")
def test_tokens_of_a_folder_are_added_elsewhere(tmp_path: Path) -> None:
    write_folder(tmp_path / "source")
    (tmp_path / "source" / "added_tokens.json").write_text(json.dumps({"<tool>": 97}))
    (tmp_path / "out").mkdir()
    source = open_source(str(tmp_path / "source"))
    source.backbone["vocab_size"] = 128
    source.write_texts(tmp_path / "out")
    made = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert ("<tool>", 97) in {(one["content"], one["id"]) for one in made["added_tokens"]}


@pytest.mark.usefixtures("only_apart")
@pytest.mark.parametrize(("limit", "value"), [("SECONDS", 0), ("MEMORY", 1 << 12)])
def test_addition_that_takes_too_much_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    write_folder(tmp_path / "source")
    (tmp_path / "source" / "added_tokens.json").write_text(json.dumps({"<tool>": 97}))
    path = tmp_path / "source" / "tokenizer.json"
    path.write_text(tokenizer_with(path, [f"{number:x}" for number in range(400_000)]))
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(tokenizer_conversion, limit, value)
    with pytest.raises(ConversionError, match=r"tokens cannot be added \(it .*takes .*\)"):
        open_source(str(tmp_path / "source")).write_texts(tmp_path / "out")


def tokenizer_with(path: Path, words: list[str]) -> str:
    """A tokenizer.json that knows more words."""
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    return json.dumps(tokenizer)


@pytest.mark.parametrize(
    "reached",
    [
        "import socket; socket.create_connection(('localhost', 9))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import pickle, collections; pickle.loads(pickle.dumps(collections.OrderedDict()))",
    ],
)
def test_nothing_is_fetched_started_or_unpickled_for_a_tokenizer(reached: str) -> None:
    """The process that converts one ends so before it begins."""
    code = (
        "import sys\n"
        "from allmem_exporters.tokenizer_conversion import _refuse_beyond\n"
        "sys.addaudithook(_refuse_beyond)\n"
        f"try:\n    {reached.replace('; ', chr(10) + '    ')}\n"
        "except PermissionError as error:\n    print(error)\n"
    )
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert "which is not done for a tokenizer" in done.stdout
