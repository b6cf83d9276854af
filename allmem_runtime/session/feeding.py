"""The low level of a session: tokens in as they are, logits out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, overload

import numpy as np

from allmem_runtime.arguments import check_kind, refused
from allmem_runtime.engine.buffers import Logits
from allmem_runtime.errors import SessionStateError, UsageError
from allmem_runtime.session.session_state import SessionState


class Feeding(SessionState):
    """A state that takes tokens with nothing around them."""

    @overload
    def feed(self, ids: Sequence[int], logits: Literal["none"] = "none") -> None: ...

    @overload
    def feed(self, ids: Sequence[int], logits: Literal["last", "all"]) -> Logits: ...

    def feed(
        self, ids: Sequence[int], logits: Literal["none", "last", "all"] = "none"
    ) -> Logits | None:
        """Feed tokens as they are, with nothing around them.

        Args:
            ids: token ids.
            logits: of no token, the last, or all of them.

        Returns:
            None, [vocab_size], or [tokens, vocab_size].

        Raises:
            UsageError: an id is no token of this model, or logits of no tokens are wanted.
            SessionStateError: the session is busy or failed, or the call was cancelled.
        """
        ids = _listed(ids)
        if logits not in ("none", "last", "all"):
            raise UsageError(f"logits is {logits!r}.", "Use none, last or all.")
        if logits != "none" and not len(ids):
            raise UsageError("There is no token to give logits of.", "Feed at least one.")
        if logits == "all":
            rows = [np.zeros((0, self.model.manifest.backbone.vocab_size), np.float32)]
            return np.concatenate([*rows, *self.logits_all(ids)])
        with self._operation("tokens are being fed"):
            self._begin_raw(ids)
            found: Logits | None = None
            for found in self._cursor.feed(last=logits == "last"):  # noqa: B007
                pass
            if logits == "none":
                return None
            if found is None or not len(found):
                raise SessionStateError(
                    "The call was cancelled before its last token.", "Feed nothing to go on."
                )
            row: Logits = found[-1].copy()
            return row

    def logits_all(self, ids: Sequence[int]) -> Iterator[Logits]:
        """Feed tokens and yield the logits of each, a piece at a time, for evaluation.

        Yields:
            [tokens of the piece, vocab_size].
        """
        ids = _listed(ids)
        with self._operation("tokens are being fed"):
            cursor = self._cursor
            for _ in cursor.feed():
                pass
            self._begin_raw(ids)
            while (count := cursor.ready()) and not cursor.stop.is_set():
                yield cursor.step(count, range(count)).copy()

    def likelihood(self, ids: Sequence[int], told: range) -> float:
        """Feed tokens as they are but the last, which waits, and tell how likely some of them were.

        Args:
            ids: token ids, at least one.
            told: which of them; of the first one nothing is known.

        Returns:
            The sum of the natural logarithms of their probabilities; minus infinity if the call
            was cancelled.

        Raises:
            UsageError: an id is no token of this model.
            SessionStateError: the session is busy or failed, or its logits are not finite.
        """
        ids = _listed(ids)
        check_kind("told", told, range, "Give a range of places in ids.")
        with self._operation("tokens are being fed"):
            cursor = self._cursor
            for _ in cursor.feed():
                pass
            self._begin_raw(ids)
            total, waiting = 0.0, cursor.place.pending
            while count := min(cursor.ready(), len(waiting) - 1):
                if cursor.stop.is_set():
                    return -math.inf
                done = len(ids) - len(waiting)
                rows = [row for row in range(count) if done + row + 1 in told]
                logits = cursor.step(count, rows)
                if rows:
                    cursor.check_logits(logits)
                for row, scores in zip(rows, logits, strict=True):
                    best = scores.max()
                    spread = np.log(np.exp(scores - best).sum())
                    total += float(scores[ids[done + row + 1]] - best - spread)
            return total

    def follow(self, fed: Callable[[int], None] | None) -> None:
        """Have somebody told after each step how many tokens it fed; None tells nobody any more."""
        self._cursor.fed = fed

    def _begin_raw(self, ids: Sequence[int]) -> None:
        place = self._cursor.place
        lead = self.model.tokenizer.encode_text(place.lead, "text")
        turn = place.turn
        self._take([*lead, *ids], "raw" if turn == "start" and len(ids) else turn)


def _listed(ids: Iterable[int]) -> list[int]:
    if not isinstance(ids, Iterable):
        raise refused("ids", ids, "Give a list of token ids.")
    return list(ids)
