"""The model's own tokenizer: text to tokens and back, token by token.

Two encoders are kept: one for text that people wrote, in which nothing is a control token, and
one for templates, in which control tokens are recognized. Neither adds tokens of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers

from allmem_runtime.errors import ModelFileError
from allmem_runtime.text.decoding import DecoderKind, StreamDecoder
from allmem_runtime.text.pipeline import steps_of
from allmem_runtime.text.segments import without_surrogates

MAX_TOKENIZER_BYTES = 1 << 28

# Some tokenizers list control tokens as ordinary added ones; their form gives them away.
_CONTROL_FORM = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)


class Tokenizer:
    """A ``tokenizer.json``; immutable, so threads may share it."""

    def __init__(self, content: str) -> None:
        self._template = _plain(content)
        self._added = self._template.get_added_tokens_decoder()
        self._text = _twin(self._template, self._added) or _plain(content)
        self.control: dict[int, str] = {
            number: token.content
            for number, token in self._added.items()
            if token.special or _CONTROL_FORM.fullmatch(token.content)
        }
        """Control tokens by id."""
        self._text.add_special_tokens(
            [
                tokenizers.AddedToken(text, special=True, normalized=False)
                for text in self.control.values()
            ]
        )
        self._text.encode_special_tokens = True
        self._kind = DecoderKind.of(steps_of(self._template, "decoder"))
        self.vocab_size: int = max(self._template.get_vocab().values(), default=-1) + 1
        """One more than the largest token id."""

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            ModelFileError: missing, too large, or not a tokenizer.
        """
        hint = "Export the model again, or fetch an intact copy."
        try:
            size = path.stat().st_size
            if size > MAX_TOKENIZER_BYTES:
                raise ModelFileError(
                    f"{path}: the tokenizer has {size} bytes; at most {MAX_TOKENIZER_BYTES} "
                    "are read.",
                    hint,
                )
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ModelFileError(f"{path}: cannot read the tokenizer ({reason}).", hint) from None
        try:
            return cls(content)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        # The library raises plain Exception, and a panic of its native code is a BaseException.
        except BaseException as error:
            raise ModelFileError(f"{path}: not a tokenizer ({error}).", hint) from None

    def encode_text(self, text: str) -> list[int]:
        """Tokens of a text in which nothing is a control token, whatever it contains."""
        text = without_surrogates(text)
        ids: list[int] = self._text.encode(text, add_special_tokens=False).ids
        if self.control.keys().isdisjoint(ids):
            return ids
        # Vocabularies exist in which the control token is an ordinary entry too. No single
        # character is one.
        pieces = (self._text.encode(character, add_special_tokens=False).ids for character in text)
        return [i for piece in pieces for i in piece if i not in self.control]

    def encode_template(self, text: str) -> list[int]:
        """Tokens of a template's own text, control tokens recognized."""
        text = without_surrogates(text)
        ids: list[int] = self._template.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens; control tokens are left out."""
        text: str = self._template.decode(list(ids), skip_special_tokens=True)
        return text

    def stream(self) -> StreamDecoder:
        """A decoder for tokens that arrive one by one."""
        return StreamDecoder(self.decode, self._name, self._kind)

    def _name(self, token: int) -> str | None:
        """The token of an id; None if decoding skips it."""
        if token in self._added and self._added[token].special:
            return None
        name: str | None = self._template.id_to_token(token)
        return name


def _twin(
    other: tokenizers.Tokenizer, added: Mapping[int, tokenizers.AddedToken]
) -> tokenizers.Tokenizer | None:
    """A tokenizer over the same vocabulary in memory: reading it again takes as long as the rest.

    Args:
        other: a tokenizer that neither cuts nor fills up.
        added: its added tokens by id.

    Returns:
        None if it would not number its added tokens as the other does.
    """
    twin = tokenizers.Tokenizer(other.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        value = getattr(other, part)
        if value is not None:
            setattr(twin, part, value)
    # New ones are numbered in the order of adding.
    twin.add_tokens([token for _, token in sorted(added.items())])
    same = twin.get_added_tokens_decoder() == added
    return twin if same and twin.get_vocab_size() == other.get_vocab_size() else None


def _plain(content: str) -> tokenizers.Tokenizer:
    """A tokenizer that neither cuts nor fills up: a file may ask for both."""
    tokenizer = tokenizers.Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
