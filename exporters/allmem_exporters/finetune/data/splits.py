"""Decides from a document alone whether it is held out, so that it never changes sides."""

from __future__ import annotations

import hashlib

from allmem_exporters.finetune.data.sequence import HELDOUT, TRAIN


def fingerprint(text: str) -> bytes:
    """16 bytes that tell texts apart; white space and case do not matter."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).digest()[:16]


def split_of(document: str, heldout: float) -> str:
    """``heldout`` for the given fraction of all documents, ``train`` for the others.

    Args:
        document: its text, or a name that is its own.
        heldout: fraction, 0 to 1.
    """
    share = int.from_bytes(fingerprint(document)[:8], "big") / 2**64
    return HELDOUT if share < heldout else TRAIN
