"""Packs plain text into sequences of a given length, in which all tokens count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from allmem_exporters.finetune.data.documents import Document
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.tokens import Tokens
from allmem_runtime.text.parts import After

_HEAD = 2048
"""Characters at the start of a document that are encoded again together with an opening."""
_TRIES = 64


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a document, or several small ones.

    Attributes:
        name: for a person to read.
        ids: int64 [length].
        head: the first characters of it, where it begins a document and may be cut behind them.
    """

    name: str
    ids: NDArray[np.int64]
    head: str = ""

    def begun(self, begin: list[int], tokens: Tokens) -> NDArray[np.int64]:
        """All tokens, with others in place of those of the head."""
        rest = self.ids[len(tokens.encode(self.head)) :]
        return np.concatenate([np.array(begin, np.int64), rest])


def pack(
    documents: list[Document],
    tokens: Tokens,
    length: int,
    random: Random,
    *,
    wanted: int,
    chat_share: float,
    kind: str = "text",
) -> Iterator[Sequence]:
    """Sequences of exactly ``length`` tokens, in random order.

    A long document is cut into consecutive pieces, each a sequence of its own; short documents
    and the rests of long ones share sequences, with the model's end-of-document token between.

    Args:
        documents: all of one split.
        tokens: of the checkpoint.
        length: in tokens.
        random: draws the order.
        wanted: how many sequences will be taken; twice as many are drawn from, where there are.
        chat_share: fraction of the sequences that begin, like a document that is read before a
            question, with what the chat template writes before a user's text.
        kind: of the sequences.
    """
    opening = tokens.opening()
    whole: list[Part] = []
    rests: list[Part] = []
    size = 0
    for document in random.sample(documents, len(documents)):
        ids = np.array(tokens.encode(document.text), np.int64)
        cut = len(ids) - len(ids) % length
        head = _head(document.text, ids, tokens)
        for start in range(0, cut, length):
            piece = ids[start : start + length]
            whole.append(Part(document.name, piece, "" if start else head))
        if len(ids) > cut:
            rests.append(Part(document.name, ids[cut:], "" if cut else head))
        size += len(ids)
        if size > 2 * wanted * length:
            break
    whole += _joined(rests, length, tokens)
    random.shuffle(whole)
    for part in whole:
        ids, counts = part.ids, np.ones(length, bool)
        if random.random() < chat_share:
            ids = part.begun(tokens.opening(part.head), tokens)[:length]
            counts = np.arange(length) >= len(opening)
        yield Sequence(ids[:length], counts[: len(ids)], kind, documents[0].split, part.name)


def _head(text: str, ids: NDArray[np.int64], tokens: Tokens) -> str:
    """The longest beginning whose tokens are the first of the whole; empty if none is found."""
    places = [place for place, character in enumerate(text[:_HEAD]) if character == " "]
    for place in reversed(places[-_TRIES:]):
        head = text[:place]
        own = tokens.encode(head)
        if ids[: len(own)].tolist() == own:
            return head
    return ""


def _joined(parts: list[Part], length: int, tokens: Tokens) -> Iterator[Part]:
    """Full sequences of several parts; what is left at the end is dropped."""
    end = np.array(tokens.document_end, np.int64)
    after: After = "control" if len(end) else "text"
    held: list[NDArray[np.int64]] = []
    first: list[Part] = []
    size = 0
    for part in parts:
        ids = part.begun(tokens.encode(part.head, after), tokens) if held else part.ids
        held += [ids, end]
        first.append(part)
        size += len(ids) + len(end)
        if size >= length:
            names = "; ".join(one.name for one in first[:4])
            yield Part(names, np.concatenate(held)[:length], first[0].head)
            held, first, size = [], [], 0
