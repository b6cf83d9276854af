"""What a stream of tokens shows stays, and is in the end what all of them decode to."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import BYTES, FAMILIES, family_json
from tokenizers import Tokenizer as Library
from tokenizers import models

from allmem_runtime.text.decoding import DecoderKind
from allmem_runtime.text.tokenizer import Tokenizer

WORDS = (
    *BYTES[0xE0:0xF4], *BYTES[0x80:0x90], "<0xFF>", "<0x41>",
    "▁the", "▁", "▁▁", " ", "key", "s", "##s", " .", "n't", "a</w>", "</w>", "aa", "b", "",
    "\ufffd", "東京", "Ġthe", "æ", "Ŀ", "±", "ÿ", "<pad>", "|", "x ", "  x",
)  # fmt: skip
STEPS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "Replace, bytes, Fuse, Strip": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
    "bytes, Metaspace": [
        {"type": "ByteFallback"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    ],
    "Fuse, Replace": [
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    ],
    "a longer Replace behind Fuse": [
        {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "aa"}, "content": "b"},
    ],
    "a Replace by pattern behind Fuse": [
        {"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "s$"}, "content": "S"},
    ],
    "Replace that makes bytes": [
        {"type": "Replace", "pattern": {"String": "b"}, "content": "<0xE6>"},
        {"type": "ByteFallback"}, {"type": "Fuse"},
    ],
    "byte level": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    ],
    "byte level, Strip": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Strip", "content": " ", "start": 2, "stop": 0},
    ],
    "word pieces": [{"type": "WordPiece", "prefix": "##", "cleanup": True}],
    "word ends": [{"type": "BPEDecoder", "suffix": "</w>"}],
    "CTC": [
        {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}
    ],
}  # fmt: skip


@cache
def with_decoder(name: str) -> tuple[Tokenizer, Library]:
    """A tokenizer of ``WORDS`` with one of ``STEPS``, ours and the library's."""
    library = Library(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="b"))
    library.add_special_tokens(["<s>"])
    data = json.loads(library.to_str())
    data["decoder"] = {"type": "Sequence", "decoders": STEPS[name]} if STEPS[name] else None
    content = json.dumps(data)
    return Tokenizer(content), Library.from_str(content)


def check(tokenizer: Tokenizer, library: Library, ids: list[int]) -> None:
    """Each piece stays true whatever comes after it."""
    whole = library.decode(ids, skip_special_tokens=True)
    stream = tokenizer.stream()
    shown = ""
    for token in ids:
        shown += stream.push(token)
        assert whole.startswith(shown)
    assert shown + stream.finish() == whole == tokenizer.decode(ids)


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_tokens_are_shown_once_and_as_the_library_decodes_them(
    name: str, data: st.DataObject
) -> None:
    tokenizer, library = with_decoder(name)
    check(tokenizer, library, data.draw(st.lists(st.integers(0, len(WORDS)), max_size=40)))


@cache
def of_family(name: str) -> tuple[Tokenizer, Library]:
    """A family's tokenizer, ours and the library's."""
    return Tokenizer(family_json(name)), Library.from_str(family_json(name))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_each_family_shows_what_the_library_decodes(name: str, data: st.DataObject) -> None:
    tokenizer, library = of_family(name)
    tokens = st.integers(0, tokenizer.vocab_size - 1)
    check(tokenizer, library, data.draw(st.lists(tokens, max_size=60)))
    text = data.draw(st.text(max_size=60))
    check(tokenizer, library, tokenizer.encode_text(text))


@pytest.mark.parametrize("name", ["Prepend", "Metaspace always", "Replace", "byte level"])
def test_a_character_of_several_bytes_comes_out_whole(name: str) -> None:
    tokenizer, _ = of_family(name)
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in tokenizer.encode_text("the 東京 🙂 key")]
    assert "\ufffd" not in "".join([*pieces, stream.finish()])
    assert "".join(pieces).rstrip("key") == "the 東京 🙂 ", "shown as it came, not at the end"


@pytest.mark.parametrize("name", ["byte level", "Replace, bytes, Fuse, Strip"])
def test_bytes_that_make_no_character_keep_few_tokens_and_are_not_decoded_again(name: str) -> None:
    tokenizer, library = with_decoder(name)
    decoded = 0

    def decode(ids: list[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return tokenizer.decode(ids)

    stream = tokenizer.stream()
    stream._decode = decode
    ids = [WORDS.index("ÿ" if name == "byte level" else "<0xFF>")] * 2000
    shown = "".join(map(stream.push, ids)) + stream.finish()
    assert shown == library.decode(ids)
    assert decoded < 100 * len(ids)


def test_a_decoder_that_may_change_all_is_known_as_such() -> None:
    sure = {name for name, steps in STEPS.items() if DecoderKind.of(steps).local}
    assert set(STEPS) - sure == {
        "a longer Replace behind Fuse",
        "a Replace by pattern behind Fuse",
        "Replace that makes bytes",
    }
