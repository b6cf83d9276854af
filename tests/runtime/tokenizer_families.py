"""One small tokenizer of each family, as published models have them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from runtime.tokenizers_for_tests import byte_level_json
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
SAMPLE = [
    "The key of the boathouse hangs in the hall, and nobody had been there since May.",
    "Über den Flüssen. Who asked? I did not; she said so!  def f(x):\n    return x",
]


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator(SAMPLE * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return tokenizer


def _byte_level(prefix: bool) -> Tokenizer:
    tokenizer = Tokenizer.from_str(byte_level_json())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return tokenizer


def _sentencepiece(
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    decoder: decoders.Decoder,
) -> Tokenizer:
    """BPE over whole words with bytes for what has no token, as Llama 2 and Mistral have it."""
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    _trained(words, trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*SPECIAL, *BYTES], show_progress=False
    ))  # fmt: skip
    data = json.loads(words.to_str())["model"]
    merges = [tuple(merge) for merge in data["merges"]]
    tokenizer = Tokenizer(models.BPE(
        vocab=data["vocab"], merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    ))  # fmt: skip
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    )
    return tokenizer


def _spaces_back(*more: decoders.Decoder) -> decoders.Decoder:
    return decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *more]
    )


def _metaspace(scheme: str) -> Tokenizer:
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    return _sentencepiece(
        None, pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False), _spaces_back(*strip)
    )


def _prepend() -> Tokenizer:
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _sentencepiece(normalizer, None, _spaces_back(decoders.Strip(" ", 1, 0)))


def _replaced() -> Tokenizer:
    return _sentencepiece(normalizers.Replace(" ", "▁"), None, _spaces_back())


def charsmap() -> str:
    """A precompiled map that makes a tabulator a space: a double array of one key, and values."""
    units = [0] * 1024
    units[0] = 256 << 10  # the root's children
    units[256 ^ 9] = 512 << 10 | 1 << 8 | 9  # has a value, which is 0: the first text below
    trie = struct.pack("<1024I", *units)
    return base64.b64encode(struct.pack("<I", len(trie)) + trie + b" \0").decode()


def _unigram() -> Tokenizer:
    """Unigram with a precompiled map of characters, as XLM-R and T5 have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    _trained(tokenizer, trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(SPECIAL), unk_token="<unk>", show_progress=False
    ))  # fmt: skip
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    data["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": charsmap()},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    ]}  # fmt: skip
    data["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                       "split": True}  # fmt: skip
    return Tokenizer.from_str(json.dumps(data))


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(tokenizer, trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=list(SPECIAL), show_progress=False
    ))  # fmt: skip


def _characters() -> Tokenizer:
    letters = {c: n for n, c in enumerate(dict.fromkeys(["<unk>", *"".join(SAMPLE)]))}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


_MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": lambda: _byte_level(False),
    "byte level, space in front": lambda: _byte_level(True),
    "Metaspace always": lambda: _metaspace("always"),
    "Metaspace first": lambda: _metaspace("first"),
    "Metaspace never": lambda: _metaspace("never"),
    "Prepend": _prepend,
    "Replace": _replaced,
    "unigram": _unigram,
    "word pieces": _word_piece,
    "characters": _characters,
}
FAMILIES = tuple(_MAKERS)


@cache
def family_json(name: str) -> str:
    """The ``tokenizer.json`` of a family."""
    return str(_MAKERS[name]().to_str())
