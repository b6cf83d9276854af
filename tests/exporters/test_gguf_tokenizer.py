"""A GGUF file's tokenizer cuts texts as llama.cpp cuts them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gguf
import pytest
from checkpoints import PIECES, TOKENS, byte_pairs, sentence_pieces, write_gguf
from tokenizers import Tokenizer

from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ConversionError
from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.sources import open_source
from allmem_runtime.config import Manifest
from allmem_runtime.spec import MANIFEST_FILE
from allmem_runtime.text.tokenizer import Tokenizer as RuntimeTokenizer

ADD_BOS, ADD_SPACE = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix"
BOS, EOS = 1, 2


def written(tmp_path: Path, **options: object) -> Path:
    """The file of the tokenizer that a tiny GGUF file with these options gets."""
    write_gguf(tmp_path / "tiny.gguf", **options)  # type: ignore[arg-type]
    open_source(str(tmp_path / "tiny.gguf")).write_texts(tmp_path)
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize(
    ("split", "fields", "begins"),
    [
        ("llama-bpe", {}, True),
        ("llama3", {}, True),
        ("llama-v3", {}, True),
        ("llama-bpe", {ADD_BOS: False}, False),
        ("gpt-2", {}, False),
        ("qwen2", {}, False),
        ("smollm", {ADD_BOS: True}, True),
    ],
)
def test_texts_begin_with_a_token_where_llama_cpp_begins_them_so(
    tmp_path: Path, split: str, fields: dict[str, object], begins: bool
) -> None:
    tokenizer = Tokenizer.from_file(str(written(tmp_path, split=split, extra_fields=fields)))
    assert tokenizer.encode("th").tokens == [*([TOKENS[BOS]] if begins else []), "th"]


def test_model_begins_texts_so(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, split="llama-bpe", extra_fields={"tokenizer.ggml.add_eos_token": True})
    options = MemoryOptions(window=32, chunk=16, mem_width=16)
    make(file, tmp_path / "model", options, ExportOptions(check=False))
    manifest = Manifest.from_json((tmp_path / "model" / MANIFEST_FILE).read_text(), "m")
    assert manifest.begin_tokens == (BOS,)


@pytest.mark.parametrize(("split", "tokens"), [("llama-bpe", ["th"]), ("gpt-2", ["t", "h"])])
def test_word_that_is_a_token_needs_no_merges_where_llama_cpp_ignores_them(
    tmp_path: Path, split: str, tokens: list[str]
) -> None:
    without = partial(byte_pairs, split=split, merges=["1 2"])
    file = written(tmp_path, tokenizer=without, extra_fields={ADD_BOS: False})
    assert Tokenizer.from_file(str(file)).encode("th").tokens == tokens


@pytest.mark.parametrize(
    ("split", "cuts"),
    [
        ("default", ["123", "4", "\u0120", "<=", "s"]),
        ("gpt-2", ["1234", "\u0120<=", "s"]),
        ("smollm", ["1", "2", "3", "4", "\u0120<=", "s"]),
        ("llama-bpe", ["123", "4", "\u0120<=", "s"]),
        ("qwen2", ["1", "2", "3", "4", "\u0120<=", "s"]),
        ("deepseek-r1-qwen", ["1", "2", "3", "4", "\u0120<=", "s"]),
        ("olmo", ["1234", "\u0120<=", "s"]),
        ("starcoder", ["1", "2", "3", "4", "\u0120<=", "s"]),
        ("glm4", ["123", "4", "\u0120<=", "s"]),
        ("gpt-4o", ["123", "4", "\u0120<=", "s"]),
        ("tekken", ["1", "2", "3", "4", "\u0120<=", "s"]),
        ("seed-coder", ["1", "2", "3", "4", "\u0120<=", "s"]),
    ],
)
def test_text_is_split_as_the_file_says(tmp_path: Path, split: str, cuts: list[str]) -> None:
    tokenizer = Tokenizer.from_file(str(written(tmp_path, split=split)))
    assert [cut for cut, _ in tokenizer.pre_tokenizer.pre_tokenize_str("1234 <=s")] == cuts


@pytest.mark.parametrize(
    ("split", "cuts"),
    [
        ("gpt-4o", ["Th", "In'S", "+/"]),
        ("tekken", ["Th", "In", "'S", "+/"]),
        ("dbrx", ["ThIn", "'S", "+/"]),
        ("gpt-2", ["ThIn", "'", "S", "+/"]),
    ],
)
def test_words_are_split_by_case_where_the_file_says_so(
    tmp_path: Path, split: str, cuts: list[str]
) -> None:
    tokenizer = Tokenizer.from_file(str(written(tmp_path, split=split)))
    assert [cut for cut, _ in tokenizer.pre_tokenizer.pre_tokenize_str("ThIn'S+/")] == cuts


def test_file_without_a_name_of_its_splitting_has_llama_cpps_default(tmp_path: Path) -> None:
    def unnamed(writer: gguf.GGUFWriter) -> None:
        byte_pairs(writer, "default")
        del writer.kv_data[0]["tokenizer.ggml.pre"]

    tokenizer = Tokenizer.from_file(str(written(tmp_path, tokenizer=unnamed)))
    assert [cut for cut, _ in tokenizer.pre_tokenizer.pre_tokenize_str("1234")] == ["123", "4"]


def test_control_token_of_other_letters_than_bytes_have_stays_whole(tmp_path: Path) -> None:
    def named(writer: gguf.GGUFWriter) -> None:
        byte_pairs(writer, "deepseek-r1-qwen")
        tokens = [*TOKENS[:-1], "<\uff5cUser\uff5c>"]
        kinds = [3, 3, 3, *[1] * (len(TOKENS) - 4), 3]
        for key, values in (("tokens", tokens), ("token_type", kinds)):
            writer.kv_data[0][f"tokenizer.ggml.{key}"].value = values
        writer.kv_data[0]["tokenizer.ggml.merges"].value = ["t h"]

    tokenizer = Tokenizer.from_file(str(written(tmp_path, tokenizer=named)))
    assert tokenizer.encode("th<\uff5cUser\uff5c>th").ids == [95, len(TOKENS) - 1, 95]


def test_beginning_that_the_file_does_not_name_is_refused(tmp_path: Path) -> None:
    def unnamed(writer: gguf.GGUFWriter) -> None:
        byte_pairs(writer, "llama-bpe")
        del writer.kv_data[0]["tokenizer.ggml.bos_token_id"]

    with pytest.raises(ConversionError, match="begin with a token of their own"):
        written(tmp_path, tokenizer=unnamed)


# Sentence pieces -------------------------------------------------------------------------------

TEXTS = ["the other thing", " the", "  the", "x", " ", "th<tool>the in<tool> ther", "caf\u00e9 12",
         "a\n\tb", "\u2581", "the</s> the"]  # fmt: skip


def cut_as_llama_cpp_does(text: str, *, prefixed: bool) -> list[int]:
    """Every pair of neighbors that is a piece is joined, the best one first, until none is left."""
    pieces = {piece: number for number, (piece, _, _) in enumerate(PIECES)}
    found: list[int] = []
    after_token = True
    while text:
        named = [(text.find(piece), piece) for piece, _, kind in PIECES if kind in (2, 3, 4)]
        at, token = min((one for one in named if one[0] >= 0), default=(len(text), ""))
        part, text = text[:at], text[at + len(token) :]
        if part:
            part = (" " if prefixed and after_token else "") + part
            found += _joined(list(part.replace(" ", "\u2581")), pieces)
            after_token = False
        if token:
            found.append(pieces[token])
            after_token = True
    return found


def _joined(parts: list[str], pieces: dict[str, int]) -> list[int]:
    while True:
        scores = [
            (PIECES[pieces[one + two]][1], -place)
            for place, (one, two) in enumerate(zip(parts, parts[1:], strict=False))
            if one + two in pieces
        ]
        if not scores:
            break
        place = -max(scores)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [
        number
        for part in parts
        for number in (
            [pieces[part]]
            if part in pieces
            else [pieces[f"<0x{byte:02X}>"] for byte in part.encode()]
        )
    ]


@pytest.mark.parametrize("prefixed", [True, False])
def test_sentence_pieces_are_those_of_llama_cpp(tmp_path: Path, prefixed: bool) -> None:
    fields: dict[str, object] = {} if prefixed else {ADD_SPACE: False}
    file = written(tmp_path, tokenizer=sentence_pieces, extra_fields=fields, vocab_size=len(PIECES))
    tokenizer = Tokenizer.from_file(str(file))
    for text in TEXTS:
        wanted = cut_as_llama_cpp_does(text, prefixed=prefixed)
        assert tokenizer.encode(text, add_special_tokens=False).ids == wanted, text
        assert tokenizer.encode(text).ids == [BOS, *wanted], text
    plain = RuntimeTokenizer.from_file(file)
    assert plain.decode(plain.encode_text("the other thing")) == "the other thing"


# What a file says that nobody here understands --------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"llama.attention.causal": False}, "llama.attention.causal is False"),
        ({"llama.attention.scale": 0.5}, "llama.attention.scale is 0.5"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8"),
        ({"llama.rope.freq_base_swa": 1e4}, "llama.rope.freq_base_swa is 10000.0"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces is True"),
        ({"tokenizer.ggml.precompiled_charsmap": "x"}, "precompiled_charsmap is 'x'"),
    ],
)
def test_key_that_may_change_the_model_is_refused_by_name(
    tmp_path: Path, fields: dict[str, object], said: str
) -> None:
    write_gguf(tmp_path / "tiny.gguf", extra_fields=fields)
    with pytest.raises(ConversionError, match=f"{said} in its metadata, which is not understood"):
        open_source(str(tmp_path / "tiny.gguf"))


def test_key_that_changes_nothing_is_passed_over(tmp_path: Path) -> None:
    fields: dict[str, object] = {
        "llama.attention.causal": True, "llama.vocab_size": 97, "llama.expert_count": 0,
        "general.file_type": 7, "quantize.imatrix.file": "x", "tokenizer.ggml.mask_token_id": 3,
    }  # fmt: skip
    write_gguf(tmp_path / "tiny.gguf", extra_fields=fields)
    assert convert(tmp_path / "tiny.gguf", tmp_path / "out", window=32, mem_width=16).is_dir()


def test_tokenizer_beside_the_file_is_another_models(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(
        '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'
    )
    write_gguf(tmp_path / "tiny.gguf")
    out = convert(tmp_path / "tiny.gguf", tmp_path / "out", window=32, mem_width=16)
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("th").tokens == ["th"]


def test_every_token_that_ends_a_turn_ends_an_answer(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", extra_fields={"tokenizer.ggml.eot_token_id": 0})
    assert open_source(str(tmp_path / "tiny.gguf")).backbone["eos_token_id"] == [EOS, 0]


def test_templates_of_which_none_is_for_chats_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, extra_fields={"tokenizer.chat_template.tool_use": "x"}, template=None)
    with pytest.raises(ConversionError, match=r"none of its chat templates .*tool_use"):
        convert(file, tmp_path / "out", window=32, mem_width=16)


def test_gemma_merges_pieces_in_the_order_of_its_vocabulary_and_spells_spaces(
    tmp_path: Path,
) -> None:
    def reversed_scores(writer: gguf.GGUFWriter) -> None:
        sentence_pieces(writer)
        pieces = [piece.replace("\u2581\u2581", "  ") for piece, _, _ in PIECES]
        writer.kv_data[0]["tokenizer.ggml.tokens"].value = pieces
        scores = [float(number) for number in range(len(PIECES))]
        writer.kv_data[0]["tokenizer.ggml.scores"].value = scores
        kinds = [
            4 if piece == "  " else kind for piece, (_, _, kind) in zip(pieces, PIECES, strict=True)
        ]
        writer.kv_data[0]["tokenizer.ggml.token_type"].value = kinds
        writer.add_add_space_prefix(False)

    file = written(tmp_path, name="gemma", tokenizer=reversed_scores)
    tokenizer = Tokenizer.from_file(str(file))
    assert tokenizer.encode("her", add_special_tokens=False).tokens == ["he", "r"]
    assert tokenizer.encode("x  y", add_special_tokens=False).tokens == ["x", "\u2581\u2581", "y"]


def test_gemmas_tokenizer_is_that_of_transformers(tmp_path: Path) -> None:
    marks = [
        *(chr(code) for code in range(33, 127)),
        "\u2581",
        "  ",
        "   ",
        "th",
        "he",
        "er",
        "the",
    ]
    marks += ["\u2581t", "\u2581th", "\u2581the", "\u2581a", "in", "ha", "\n", "\n\n", "22", "333"]
    pieces = [
        "<pad>",
        "<bos>",
        "<eos>",
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *marks,
    ]

    def whole(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([-1000.0 if not one.strip(" ") else 0.0 for one in pieces])
        blank = [4 if not one.strip() else 1 for one in marks]
        writer.add_token_types([3, 3, 3, 2, *[6] * 256, *blank])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_space_prefix(False)

    file = written(tmp_path, name="gemma", tokenizer=whole, vocab_size=len(pieces))
    source = open_source(str(tmp_path / "tiny.gguf"))
    assert "awkward texts are those" in str(source.compare_texts(tmp_path))
    tokenizer = Tokenizer.from_file(str(file))
    assert tokenizer.decode(tokenizer.encode("the  a\n\nthe").ids) == "the  a\n\nthe"
