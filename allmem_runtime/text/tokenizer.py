"""The model's own tokenizer: text to tokens and back, token by token.

Text that people wrote has encoders of its own, in which nothing is a control token; templates
have one in which control tokens are recognized. None adds tokens of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from allmem_runtime.errors import ModelFileError
from allmem_runtime.text.decoding import DecoderKind, StreamDecoder
from allmem_runtime.text.parts import After, Part
from allmem_runtime.text.pipeline import steps_of, with_steps
from allmem_runtime.text.prefixes import steps_behind
from allmem_runtime.text.segments import without_surrogates

MAX_TOKENIZER_BYTES = 1 << 28
_REMEDY = "Export the model again, or fetch an intact copy."

# Some tokenizers list control tokens as ordinary added ones; their form gives them away.
_CONTROL_FORM = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
_LONGEST_LITERAL = 64
_NO_CHARACTER = "\U0010fffd"


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
        self._make_plain(self._text)
        # What no entry stands for is not written by anybody who could mean something by it.
        self._forbidden = self.control.keys() - self._unknown()
        self._encoders: dict[After, tokenizers.Tokenizer] = {"start": self._text}
        for after in ("control", "text"):
            if encoder := self._made_for(after, content):
                self._encoders[after] = encoder
        self._kind = DecoderKind.of(steps_of(self._template, "decoder"))
        self.vocab_size: int = max(self._template.get_vocab().values(), default=-1) + 1
        """One more than the largest token id."""

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            ModelFileError: missing, too large, or not a tokenizer.
        """
        return cls.from_content(read_tokenizer(path), path)

    @classmethod
    def from_content(cls, content: str, path: Path) -> Tokenizer:
        """The tokenizer of what ``read_tokenizer`` gave.

        Raises:
            ModelFileError: not a tokenizer.
        """
        try:
            return cls(content)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        # The library raises plain Exception, and a panic of its native code is a BaseException.
        except BaseException as error:
            raise ModelFileError(f"{path}: not a tokenizer ({error}).", _REMEDY) from None

    def encode_text(self, text: str, after: After = "start") -> list[int]:
        """Tokens of a text in which nothing is a control token, whatever it contains.

        Args:
            text: what a person wrote.
            after: what stands before it: some tokenizers begin each text with a space.
        """
        if not text:
            return []
        text = without_surrogates(text)
        encoder = self._encoders.get(after, self._text)
        ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
        if self._forbidden.isdisjoint(ids):
            return ids
        # Vocabularies exist in which the control token is an ordinary entry too. No single
        # character is one.
        pieces = (encoder.encode(character, add_special_tokens=False).ids for character in text)
        return [i for piece in pieces for i in piece if i not in self._forbidden]

    def encode_with_offsets(
        self, text: str, after: After = "start"
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of ``encode_text``, and where in the text each begins and ends."""
        text = without_surrogates(text)
        encoder = self._encoders.get(after, self._text)
        found = encoder.encode(text, add_special_tokens=False)
        if self._forbidden.isdisjoint(found.ids):
            return found.ids, found.offsets
        pieces = [
            (token, (place, place + 1))
            for place, character in enumerate(text)
            for token in encoder.encode(character, add_special_tokens=False).ids
            if token not in self._forbidden
        ]
        return [token for token, _ in pieces], [place for _, place in pieces]

    def encode_parts(self, parts: Sequence[Part], after: After = "start") -> list[int]:
        """Tokens of a prompt as of one text, in which only a template's parts have control tokens.

        Args:
            parts: in order.
            after: what stands before the first.
        """
        ids, text, after = self.open_parts(parts, after)
        return ids + self.encode_text(text, after)

    def open_parts(
        self, parts: Sequence[Part], after: After = "start"
    ) -> tuple[list[int], str, After]:
        """Tokens up to the last control token, the text behind it, and what stands before that.

        More text may come, and is then encoded together with the text that is left.
        """
        ids: list[int] = []
        text, eats_space = "", False
        for part in parts:
            at, content = 0, without_surrogates(part.text)
            for token, begin, end in self._control_in(content) if part.control else ():
                text = _appended(text, content[at:begin], eats_space)
                ids += self.encode_text(text.rstrip() if self._added[token].lstrip else text, after)
                ids.append(token)
                text, after, at = "", "control", end
                eats_space = self._added[token].rstrip
            text = _appended(text, content[at:], eats_space)
        return ids, text, after

    def joins(self, before: str, after: str) -> bool:
        """Whether a text may be cut between the two: their tokens are those of the whole."""
        if not after:
            return False  # what comes is not known
        one, two = self.encode_text(before, "text"), self.encode_text(after, "text")
        return one + two == self.encode_text(before + after, "text")

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """The text of these tokens; control tokens are left out unless they are asked for."""
        text: str = self._template.decode(list(ids), skip_special_tokens=not control)
        return text

    def stream(self) -> StreamDecoder:
        """A decoder for tokens that arrive one by one."""
        return StreamDecoder(self.decode, self._name, self._kind)

    def names(self, ids: Iterable[int]) -> list[str]:
        """What the vocabulary calls these tokens; ids that name nothing are left out."""
        names = (self._template.id_to_token(token) for token in ids)
        return [name for name in names if name is not None]

    def literals(self) -> list[str]:
        """Texts that its own steps look for or put in."""
        steps = [
            step
            for part in ("normalizer", "pre_tokenizer", "decoder")
            for step in steps_of(self._template, part)
        ]
        return sorted({text for step in steps for text in _texts(step)})

    def _name(self, token: int) -> str | None:
        """The token of an id; None if decoding skips it."""
        if token in self._added and self._added[token].special:
            return None
        name: str | None = self._template.id_to_token(token)
        return name

    def _control_in(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Control tokens in a template's text, and where each begins and ends."""
        found = self._template.encode(text, add_special_tokens=False)
        for token, (begin, end) in zip(found.ids, found.offsets, strict=True):
            written = text[begin:end].strip() == self.control.get(token)
            if token in self._forbidden or written:
                yield token, begin, end

    def _made_for(self, after: After, content: str) -> tokenizers.Tokenizer | None:
        """The encoder for texts that do not stand at the start; None if they are as others."""
        old = {part: steps_of(self._text, part) for part in ("normalizer", "pre_tokenizer")}
        new = {part: steps_behind(after, part, steps) for part, steps in old.items()}
        if new == old:
            return None
        encoder = _twin(self._template, self._added) or _plain(content)
        for part, steps in new.items():
            if steps != old[part]:
                with_steps(encoder, part, steps)
        self._make_plain(encoder)
        return encoder

    def _unknown(self) -> set[int]:
        """The token for what has none, if there is one."""
        found = self._text.encode(_NO_CHARACTER, add_special_tokens=False).ids
        named = getattr(self._text.model, "unk_token", None)
        return {*found, *(() if named is None else (self._text.token_to_id(named),))}

    def _make_plain(self, encoder: tokenizers.Tokenizer) -> None:
        """Have an encoder take control tokens for text."""
        encoder.add_special_tokens(
            [
                tokenizers.AddedToken(text, special=True, normalized=False)
                for text in self.control.values()
            ]
        )
        encoder.encode_special_tokens = True


def read_tokenizer(path: Path) -> str:
    """Contents of a ``tokenizer.json``.

    Raises:
        ModelFileError: missing, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_TOKENIZER_BYTES:
            raise ModelFileError(
                f"{path}: the tokenizer has {size} bytes; at most {MAX_TOKENIZER_BYTES} are read.",
                _REMEDY,
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ModelFileError(f"{path}: cannot read the tokenizer ({reason}).", _REMEDY) from None


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


def _texts(value: Any) -> Iterator[str]:
    """All short texts in a value as JSON knows it."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_LITERAL:
        yield value
    elif isinstance(value, dict):
        for inside in value.values():
            yield from _texts(inside)


def _appended(text: str, more: str, eats_space: bool) -> str:
    """A text and what comes after it; a control token before it may take its first spaces."""
    return text + (more.lstrip() if eats_space and not text else more)
