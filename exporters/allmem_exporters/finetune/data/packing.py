"""Packs plain text into sequences of a given length, in which all tokens count."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
from numpy.typing import NDArray

from allmem_exporters.finetune.data.documents import Document
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.tokens import Tokens

Part = tuple[str, NDArray[np.int64]]


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
    room = length - len(opening)
    whole: list[Part] = []
    rests: list[Part] = []
    size = 0
    for document in random.sample(documents, len(documents)):
        ids = np.array(tokens.encode(document.text), np.int64)
        cut = len(ids) - len(ids) % length
        whole += [(document.name, ids[start : start + length]) for start in range(0, cut, length)]
        if len(ids) > cut:
            rests.append((document.name, ids[cut:]))
        size += len(ids)
        if size > 2 * wanted * length:
            break
    whole += _joined(rests, length, np.array(tokens.document_end, np.int64))
    random.shuffle(whole)
    for name, ids in whole:
        if random.random() < chat_share:
            ids = np.concatenate([np.array(opening, np.int64), ids[:room]])
            counts = np.arange(length) >= len(opening)
        else:
            counts = np.ones(length, bool)
        yield Sequence(ids, counts, kind, documents[0].split, name)


def _joined(parts: list[Part], length: int, end: NDArray[np.int64]) -> Iterator[Part]:
    """Full sequences of several parts; what is left at the end is dropped."""
    held: list[NDArray[np.int64]] = []
    names: list[str] = []
    size = 0
    for name, ids in parts:
        held += [ids, end]
        names.append(name)
        size += len(ids) + len(end)
        if size >= length:
            yield "; ".join(names[:4]), np.concatenate(held)[:length]
            held, names, size = [], [], 0
