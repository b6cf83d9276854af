"""One training sequence: its tokens, which of them the loss counts, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN = "train"
HELDOUT = "heldout"
SPLITS = (TRAIN, HELDOUT)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens of one context, never mixed with another's.

    Args:
        ids: token ids, int64 [length].
        counts: bool [length]; True where this token is to be predicted and the loss counts it.
            The first token has nothing before it, so its count is always False.
        kind: what the sequence trains, such as ``text``, ``squad`` or ``needle``.
        split: ``train`` or ``heldout``.
        source: the documents it was made of, for a person to read.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.bool_]
    kind: str
    split: str = TRAIN
    source: str = ""

    def __len__(self) -> int:
        """Length in tokens."""
        return len(self.ids)
