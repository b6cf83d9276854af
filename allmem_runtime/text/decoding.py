"""Tokens to text as they come: nothing is given out that a later token could change.

The library's ``DecodeStream`` fails after bytes that make no character, shows no last U+FFFD and
has no end; it is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from allmem_runtime.text.pipeline import Step

REPLACEMENT = "\ufffd"
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_IN_BYTE = frozenset("<0x123456789abcdefABCDEF>")
_LONGEST_CHARACTER = 4
"""Bytes, and so tokens, that a character may take."""
_MOST_OPEN = 16
"""Tokens that may wait for the end of a character before it is looked whether some need not."""

# What each token becomes on its own, but for the first, the last and runs of bytes.
_EACH = {"Replace", "Strip", "ByteFallback", "Metaspace", "WordPiece", "BPEDecoder", "CTC"}


@dataclass(frozen=True, slots=True)
class DecoderKind:
    """How far a later token can reach back.

    Attributes:
        byte_runs: tokens ``<0xE6>`` stand for bytes, and a run of them is text or is not, as a
            whole.
        byte_level: bytes lie across tokens anywhere, so the last character may be unfinished.
        local: a later token changes nothing else. Where it may, nothing is certain before the end.
    """

    byte_runs: bool
    byte_level: bool
    local: bool

    @classmethod
    def of(cls, steps: Sequence[Step]) -> DecoderKind:
        """The kind of a decoder by its steps, as ``tokenizer.json`` has them."""
        local, fused, replaced = True, False, False
        kinds = [step["type"] for step in steps]
        for step in steps:
            kind = step["type"]
            if fused:
                local &= _is_local_in_a_text(step)
            elif kind in ("Fuse", "ByteLevel"):
                fused = True
            else:
                local &= kind in _EACH
                # What these make could itself be the name of a byte.
                local &= not (kind == "ByteFallback" and replaced)
                replaced |= kind != "Replace" or _IN_BYTE.issuperset(step["content"])
        return cls("ByteFallback" in kinds, "ByteLevel" in kinds, local)

    def opens_a_run(self, token: str) -> bool:
        """Whether the token is a byte of a run."""
        return self.byte_runs and _BYTE.fullmatch(token) is not None


def _is_local_in_a_text(step: Step) -> bool:
    """Whether a step that sees the whole text changes it character by character."""
    if step["type"] == "Replace":
        return len(step["pattern"].get("String", "")) == 1
    if step["type"] == "Strip":
        return int(step["stop"]) == 0
    return step["type"] in ("Fuse", "Metaspace")


class StreamDecoder:
    """Turns tokens into text as they come; the pieces together are what all tokens decode to.

    Args:
        decode: the text of a list of tokens.
        name: the token of an id; None if decoding skips it.
        kind: of the decoder.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        name: Callable[[int], str | None],
        kind: DecoderKind,
    ) -> None:
        self._decode = decode
        self._name = name
        self._kind = kind
        # Tokens from the last place but one where the text was complete: decoders strip the
        # space of the first token they see, so the new ones are never decoded alone.
        self._tokens: list[int] = []
        self._complete = 0
        self._shown = 0

    def push(self, token: int) -> str:
        """The text that is certain after this token; may be empty."""
        name = self._name(token)
        if name is None:
            return ""
        self._tokens.append(token)
        if not self._kind.local or self._kind.opens_a_run(name):
            return ""
        text = self._decode(self._tokens)
        open_end = self._kind.byte_level and text.endswith(REPLACEMENT)
        certain = len(text) - open_end
        new = text[self._shown : certain]
        self._shown = max(self._shown, certain)
        if open_end:
            self._drop_what_is_decided(text)
        else:
            self._begin_at_the_last_complete()
        return new

    def finish(self) -> str:
        """What is left: also what the tokens ended in the middle of."""
        text = self._decode(self._tokens)[self._shown :] if self._tokens else ""
        self._tokens, self._complete, self._shown = [], 0, 0
        return text

    def _begin_at_the_last_complete(self) -> None:
        before = self._tokens[self._complete :]
        shown = len(self._decode(before))
        # A text that is empty may still have a space to lose.
        if shown:
            self._tokens, self._shown = before, shown
            self._complete = len(before)

    def _drop_what_is_decided(self, text: str) -> None:
        """Bytes that never make a character may come without end."""
        if len(self._tokens) < _MOST_OPEN:
            return
        cut = len(self._tokens) - _LONGEST_CHARACTER
        first, last = (self._decode(part) for part in (self._tokens[:cut], self._tokens[cut:]))
        # Cut inside a character, the two have more U+FFFD than the whole.
        if first + last == text:
            self._tokens = self._tokens[cut:]
            self._complete = 0
            self._shown = max(self._shown - len(first), 0)
